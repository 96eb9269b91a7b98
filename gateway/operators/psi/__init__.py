"""Private set intersection of two parties."""

from gateway.operators.psi.ecdh import EcdhPsi, MaskPoints, PsiResult
from gateway.operators.psi.kernel import normalised

__all__ = ["EcdhPsi", "MaskPoints", "PsiResult", "normalised"]
