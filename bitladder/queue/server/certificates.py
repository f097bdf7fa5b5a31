"""Say what to do about a certificate that Python refuses and older Pythons took."""

from __future__ import annotations

import ssl

# OpenSSL's X509_V_ERR_PATHLEN_INVALID_FOR_NON_CA to X509_V_ERR_EC_KEY_EXPLICIT_PARAMS: what only the strict check of
# RFC 5280 refuses, which is the default since Python 3.13.
_STRICT = range(80, 95)
_HINT = (
    " Python 3.13 and newer ask of certificates what RFC 5280 does: make the authority's anew from its old key, with "
    "basicConstraints=critical,CA:TRUE and keyUsage=critical,keyCertSign,cRLSign, and those it signs with an "
    "authorityKeyIdentifier (docs/security.md), or run under Python 3.12"
)


def refusal_hint(error: BaseException) -> str:
    """Return what to do about an error of a connection; '' where nothing can be said."""
    is_strict = isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _STRICT
    return _HINT if is_strict else ""
