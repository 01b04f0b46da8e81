"""How far a long list is: a bar, a function of the caller's, or nothing."""

import contextlib
from collections.abc import Callable, Iterator

Progress = bool | Callable[[int, int], object]
Advance = Callable[[int], object]


@contextlib.contextmanager
def reporting(progress: Progress, total: int) -> Iterator[Advance]:
    """Gives what is told how many more are done.  True draws a bar with tqdm; a function gets (done, total)."""
    if callable(progress):
        done = 0

        def tell(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        yield tell
    elif progress:
        try:
            from tqdm import tqdm
        except ImportError:
            raise ImportError("progress=True draws with tqdm: pip install 'albert-serve-client[progress]'") from None
        with tqdm(total=total, unit=" texts") as bar:
            yield bar.update
    else:
        yield lambda count: None
