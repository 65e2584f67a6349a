"""Personal data of Korean, Japanese and English pages: found, and replaced by its kind.

Numbers with a checksum must pass it; numbers that could be anything (accounts, passports) need a word next to them that
says what they are. Prices, dates, statutes, versions, and numbers of companies, orders and cases are not personal data;
nor are the eight-digit service numbers of companies (1588-0000). There is no kind for names, postal addresses,
driving licences and social security numbers: they stay.
"""

from kanana_jax.data.filters.pii.find import KINDS, Found, find, replace

__all__ = ["KINDS", "Found", "find", "replace"]
