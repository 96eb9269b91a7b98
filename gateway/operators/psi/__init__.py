"""Private set intersection of two parties."""

from gateway.operators.psi.ecdh import EcdhPsi, MaskPoints, PsiResult, normalise_ids
from gateway.operators.psi.kernel import x25519_mask

__all__ = ["EcdhPsi", "MaskPoints", "PsiResult", "normalise_ids", "x25519_mask"]
