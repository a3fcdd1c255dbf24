"""The exceptions that wrong calls raise; all of them are :class:`SparseConvError`."""


class SparseConvError(Exception):
    """Base of every exception that this library raises on purpose."""


class SparseConvValueError(SparseConvError, ValueError):
    """An argument has the right type and a value that cannot be used."""


class SparseConvTypeError(SparseConvError, TypeError):
    """An argument has the wrong type, dtype or device."""


class SparseConvAttributeError(SparseConvError, AttributeError):
    """A name that is not here; another library's is answered with the one to use."""


class SparseConvNotImplementedError(SparseConvError, NotImplementedError):
    """A PyTorch function has no meaning on a sparse tensor."""
