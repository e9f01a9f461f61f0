"""Numbers in addresses: as many digits as a number of the ledger may have; Starlette's `int` takes any, and Python reads no more than 4300."""

from starlette.convertors import Convertor, register_url_convertor

NUMBER = "number"  # in a route, `/jobs/{id:number}`, once this module is imported


class _Number(Convertor[int]):
    regex = "[0-9]{1,15}"

    def convert(self, value: str) -> int:
        """Return the number."""
        return int(value)

    def to_string(self, value: int) -> str:
        """Return it as an address has it."""
        return str(value)


register_url_convertor(NUMBER, _Number())
