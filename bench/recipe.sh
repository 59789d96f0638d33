#!/bin/sh
# A renewal by hand, as the seed describes it: recipe.sh URL CA_FILE CERTIFICATE KEY FOLDER
set -eu
url=$1 ca=$2 certificate=$3 key=$4 folder=$5
ask() {
    curl --silent --show-error --fail --cacert "$ca" --cert "$certificate" --key "$key" \
        --header 'Content-Type: application/json' --data "$1" "$url"
}
ask '{"query":"query { result: configuration { certificateSigningRequestInfo { subject keyAlgorithm } managementPlaneInfo { directorURL certificateSecuredConnectorURL } } }"}' > "$folder/configuration.json"
subject=/$(sed -n 's/.*"subject": *"\([^"]*\)".*/\1/p' "$folder/configuration.json" | tr , /)
openssl genrsa -out "$folder/tls.key" 4096 2> "$folder/log"
openssl req -new -sha256 -key "$folder/tls.key" -subj "$subject" -out "$folder/request.csr" 2>> "$folder/log"
csr=$(base64 -w 0 "$folder/request.csr")
ask '{"query":"mutation ($csr: String!) { result: signCertificateSigningRequest(csr: $csr) { certificateChain caCertificate clientCertificate } }","variables":{"csr":"'"$csr"'"}}' > "$folder/signed.json"
sed -n 's/.*"certificateChain": *"\([^"]*\)".*/\1/p' "$folder/signed.json" | base64 -d > "$folder/tls.crt"
openssl x509 -in "$folder/tls.crt" -noout
