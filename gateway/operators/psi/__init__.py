"""Private set intersection of two parties."""

from gateway.operators.psi.ecdh import EcdhPsi, MaskPoints, PsiResult, normalise_ids

__all__ = ["EcdhPsi", "MaskPoints", "PsiResult", "normalise_ids"]
