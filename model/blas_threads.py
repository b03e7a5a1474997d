"""Number of threads of the BLAS library that NumPy calls.

OpenBLAS splits a product of matrices between all processors, and its threads wait actively for one another. Beside
other work a search under a free-text relation then took 46 ms of processor time instead of 6 ms (10,000 items, 512
components). A server computes many small products at once, each best in one thread.
"""

from threadpoolctl import threadpool_limits


def use_one_blas_thread() -> None:
    """Compute each product of matrices in the thread that asks for it, from now on and in the whole process.

    torch and FAISS have threads of their own, which stay as they are.
    """
    threadpool_limits(1, user_api="blas")
