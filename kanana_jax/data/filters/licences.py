"""Licences of code: which ones are permissive, and what an SPDX expression allows.

Kanana uses only code with permissive licences; files without one are left out (arXiv:2502.18934, §2.1). The list is the
Blue Oak Council's of permissive licences (version 15, ratings model to bronze, blueoakcouncil.org/list), which was also
used for The Stack (arXiv:2211.15533), plus dedications to the public domain. Expressions: SPDX 2.3, annex D.
"""

import re
from collections.abc import Collection, Mapping
from typing import Any

_IDS = """
    0BSD ADSL AFL-1.1 AFL-1.2 AFL-2.0 AFL-2.1 AFL-3.0 AMDPLPA AML AMPAS ANTLR-PD APAFML Apache-1.0 Apache-1.1
    Apache-2.0 Artistic-2.0 Bahyph Barr BlueOak-1.0.0 BSD-1-Clause BSD-2-Clause BSD-2-Clause-FreeBSD BSD-2-Clause-NetBSD
    BSD-2-Clause-Patent BSD-2-Clause-Views BSD-3-Clause BSD-3-Clause-Attribution BSD-3-Clause-Clear BSD-3-Clause-LBNL
    BSD-3-Clause-Modification BSD-3-Clause-No-Nuclear-License-2014 BSD-3-Clause-No-Nuclear-Warranty
    BSD-3-Clause-Open-MPI BSD-4-Clause BSD-4-Clause-Shortened BSD-4-Clause-UC BSD-Source-Code BSL-1.0 bzip2-1.0.5
    bzip2-1.0.6 CC0-1.0 CNRI-Jython CNRI-Python CNRI-Python-GPL-Compatible Cube curl DSDP ECL-1.0 ECL-2.0 EFL-1.0
    EFL-2.0 eGenix Entessa FTL HTMLTIDY IBM-pibs ICU ImageMagick Info-ZIP Intel ISC JasPer-2.0 Libpng libpng-2.0 libtiff
    Linux-OpenIB LPPL-1.3c MIT MIT-0 MIT-advertising MIT-CMU MIT-enna MIT-feh MIT-Modern-Variant MITNFA MS-PL MTLL
    MulanPSL-1.0 MulanPSL-2.0 Multics Mup Naumen NCSA Net-SNMP NetCDF NTP OLDAP-2.0 OLDAP-2.0.1 OLDAP-2.1 OLDAP-2.2
    OLDAP-2.2.1 OLDAP-2.2.2 OLDAP-2.3 OLDAP-2.4 OLDAP-2.5 OLDAP-2.6 OLDAP-2.7 OLDAP-2.8 OML OpenSSL PHP-3.0 PHP-3.01
    Plexus PostgreSQL PSF-2.0 psutils Python-2.0 Qhull Ruby Saxpath SGI-B-2.0 SMLNJ Spencer-86 Spencer-94 Spencer-99 SWL
    TCL TCP-wrappers Unicode-DFS-2015 Unicode-DFS-2016 Unlicense UPL-1.0 VSL-1.0 W3C W3C-19980720 W3C-20150513 X11 Xerox
    XFree86-1.1 Xnet xpp Zlib zlib-acknowledgement ZPL-2.0 ZPL-2.1
"""
PERMISSIVE = tuple(_IDS.split())
RULE = "licence"
# Keys used by data sets: British, American, and The Stack's own.
FIELDS = ("licence", "license", "licences", "licenses", "spdx", "detected_licenses", "max_stars_repo_licenses")
_OBJECT = ("spdx_id", "spdxId", "id", "key")  # keys of a licence object in GitHub's API
# Full names used by GitHub and package registries.
_NAMES = {
    "mit license": "mit",
    "the mit license": "mit",
    "apache license 2.0": "apache-2.0",
    "apache license, version 2.0": "apache-2.0",
    "apache 2.0": "apache-2.0",
    'bsd 2-clause "simplified" license': "bsd-2-clause",
    'bsd 3-clause "new" or "revised" license': "bsd-3-clause",
    "isc license": "isc",
    "boost software license 1.0": "bsl-1.0",
    "the unlicense": "unlicense",
    "zlib license": "zlib",
    "creative commons zero v1.0 universal": "cc0-1.0",
}
_TOKEN = re.compile(r"[()]|[^\s()]+")
_LONGEST = 2000


def passes(meta: Mapping[str, Any], allowed: Collection[str]) -> bool:
    """Returns whether a document's `meta` names licences, and the `allowed` ones (SPDX ids) suffice for all of it."""
    ids = frozenset(name.lower() for name in allowed)
    found = [meta[key] for key in FIELDS if meta.get(key) is not None]
    return bool(found) and all(_suffices(value, ids) for value in found)


def _suffices(value: Any, allowed: frozenset[str]) -> bool:
    """A list requires every licence in it, since it does not say which file has which."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in _OBJECT if isinstance(value.get(key), str)), None)
    if isinstance(value, (list, tuple)):
        return bool(value) and all(not isinstance(item, (list, tuple)) and _suffices(item, allowed) for item in value)
    return isinstance(value, str) and len(value) <= _LONGEST and _expression(value.strip().lower(), allowed)


def _expression(text: str, allowed: frozenset[str]) -> bool:
    """An SPDX expression in small letters: OR offers a choice, AND requires both, WITH only adds a permission."""
    text = _NAMES.get(text, text).removeprefix("license:")
    values: list[bool] = []
    waiting: list[str] = []
    operand = True  # whether an operand is expected

    def reduce(strength: int) -> None:
        while waiting and waiting[-1] != "(" and _STRENGTH[waiting[-1]] >= strength:
            right, left = values.pop(), values.pop()
            values.append(left and right if waiting.pop() == "and" else left or right)

    tokens = iter(_TOKEN.findall(re.sub(r"[,;]", " and ", text.replace("/", " or "))))
    for token in tokens:
        if token == "(" and operand:
            waiting.append(token)
        elif token == ")" and not operand:
            reduce(0)
            if not waiting:
                return False
            waiting.pop()
        elif token == "with" and not operand:
            if next(tokens, "(") in ("(", ")", *_STRENGTH):
                return False
        elif token in _STRENGTH and not operand:
            reduce(_STRENGTH[token])
            waiting.append(token)
            operand = True
        elif operand and token not in ("(", ")", "with", *_STRENGTH):
            values.append(token.removesuffix("+") in allowed)
            operand = False
        else:
            return False
    if operand:
        return False
    reduce(0)
    return not waiting and values == [True]


_STRENGTH = {"or": 1, "and": 2}
