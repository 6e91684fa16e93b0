"""Memory of feature maps, on CPUs."""

import ctypes

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let the process keep what it frees, instead of handing it back.

    glibc gets every large tensor fresh from the system, which clears it page
    by page: a quarter of the time of Faster R-CNN R50 at 800 x 1344, see
    benchmarks/NOTES.md. Other allocators (jemalloc, tcmalloc) keep the pages,
    and so does glibc's after this call. The process then stays as large as
    it was at its peak.

    Returns:
        bool: False where the C library has no mallopt.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return False
    return bool(mallopt(M_MMAP_MAX, 0) and mallopt(M_TRIM_THRESHOLD, NEVER))


def hand_back_freed_memory() -> bool:
    """Give the system what the process has kept, once.

    Returns:
        bool: whether there was anything to hand back.
    """
    malloc_trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    return malloc_trim is not None and bool(malloc_trim(0))
