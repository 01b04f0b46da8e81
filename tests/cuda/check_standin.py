"""Check the stand-in: each kernel against numpy through ONNX Runtime's CUDA provider, then counts and faults.

    ALBERT_SERVE_STANDIN_CUDA=FOLDER python -m tests.cuda.check_standin

Prints a line a check; the exit status is 1 where one failed.  The faults make ONNX Runtime write to stderr, too.
"""

import sys

from tests.cuda import checking, fault_checks, kernel_checks


def main() -> int:
    kernel_checks.check_all()
    fault_checks.check_all()
    print(f"{len(checking.failures)} failed" if checking.failures else "all passed")
    return bool(checking.failures)


if __name__ == "__main__":
    sys.exit(main())
