"""A C-MOVE by odil, run by the interpreter that odil was built for: root, level, destination, and the keys as keyword=value."""

import sys

import odil


def main(host: str, port: str, called_ae: str, root: str, destination: str, *keys: str) -> None:
    """Ask for one C-MOVE in the Patient or Study Root model, and wait until it is done; whatever is wrong is raised."""
    sop_class = getattr(odil.registry, f"{root}RootQueryRetrieveInformationModelMove")
    syntaxes = [odil.registry.ImplicitVRLittleEndian, odil.registry.ExplicitVRLittleEndian]
    context = odil.AssociationParameters.PresentationContext(1, sop_class, syntaxes, odil.AssociationParameters.PresentationContext.Role.SCU)
    association = odil.Association()
    association.set_peer_host(host)
    association.set_peer_port(int(port))
    association.update_parameters().set_calling_ae_title("ASKER").set_called_ae_title(called_ae).set_presentation_contexts([context])
    association.associate()
    mover = odil.MoveSCU(association)
    mover.set_affected_sop_class(sop_class)
    mover.set_move_destination(destination)
    query = odil.DataSet()
    for keyword, value in (key.split("=", 1) for key in keys):
        query.add(getattr(odil.registry, keyword), value.split("\\"))
    mover.move(query)
    association.release()


main(*sys.argv[1:])
