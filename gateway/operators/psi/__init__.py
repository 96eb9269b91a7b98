"""Private set intersection of two parties."""

from gateway.operators.psi.ecdh import EcdhPsi, MaskPoints, PsiResult

__all__ = ["EcdhPsi", "MaskPoints", "PsiResult"]
