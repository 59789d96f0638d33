"""The parts of an emulator, built from its options: the composition root."""

from dataclasses import dataclass
from datetime import timedelta

from .circumstance import DoorName
from .clock import Clock
from .connector import Connector, OperatorConfiguration
from .director import Director
from .director_api import DirectorAPI
from .doors import Door
from .fault_plan import FaultPlan
from .faults import FAULTS
from .first_credential import FirstCredential
from .folder import Folder
from .gateway import Gateway
from .journal import Journal
from .options import EmulatorOptions
from .registry import Registry
from .server_tls import ServerTLS
from .state_file import StateFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything behind the ports; URLs are filled in once the ports are known."""

    folder: Folder
    state: StateFile
    clock: Clock
    journal: Journal
    plan: FaultPlan
    director: Director
    director_api: DirectorAPI
    registry: Registry
    operator: OperatorConfiguration
    tls: ServerTLS
    gateway: Gateway
    latency: timedelta

    def door(self, name: DoorName) -> Door:
        """One of the two doors."""
        return Door(
            name,
            tls=self.tls,
            gateway=self.gateway,
            plan=self.plan,
            journal=self.journal,
            clock=self.clock,
            latency=self.latency,
        )

    def first_credential(self, options: EmulatorOptions) -> FirstCredential:
        """What the emulator comes with."""
        return FirstCredential(
            folder=self.folder,
            operator=self.operator,
            director=self.director,
            registry=self.registry,
            consumer_type=options.consumer_type,
            client_id=options.client_id,
        )


def build(options: EmulatorOptions, folder: Folder) -> Parts:
    """Makes or loads authorities and state; raises ValueError for a bad fault."""
    state, clock, journal = StateFile(folder), Clock(options.clock_offset), Journal()
    director = Director(ttl=options.token_ttl, on_change=state.changed)
    registry = Registry(on_change=state.changed)
    state.load(director, registry)
    plan = FaultPlan(FAULTS, chaos=options.chaos, seed=options.seed)
    for spec in options.faults:
        plan.add(spec)
    operator = _operator(options, folder)
    connector = Connector(
        configuration=operator, director=director, registry=registry, journal=journal, clock=clock
    )
    director_api = DirectorAPI(director=director, operator=operator, journal=journal, clock=clock)
    return Parts(
        folder=folder,
        state=state,
        clock=clock,
        journal=journal,
        plan=plan,
        director=director,
        director_api=director_api,
        registry=registry,
        operator=operator,
        tls=ServerTLS(
            authority=folder.server_authority(),
            names=options.certified_names(),
            anchor=operator.authority.anchor,
            tls_max=options.tls_max,
            scratch=folder.path,
        ),
        gateway=Gateway(
            connector=connector,
            director=director,
            director_api=director_api,
            registry=registry,
            plan=plan,
            journal=journal,
            clock=clock,
            audit=options.gateway,
        ),
        latency=options.latency,
    )


def _operator(options: EmulatorOptions, folder: Folder) -> OperatorConfiguration:
    return OperatorConfiguration(
        subject=options.subject,
        director_url=options.director_url or "",
        token_secured_connector_url="",
        adapter_url="",
        certificate_secured_connector_url="",
        lifetime=options.lifetime,
        authority=folder.client_authority(chain=options.chain, lifetime=options.ca_lifetime),
    )
