"""The documentation as a site: the README, these pages, the client's, the examples' and the models', in one order.

    python docs/site.py [OUT]     # or make site; build/site/index.html is the first page

The pages stay where they are read as files: they are copied to a folder of the same shape, so their links hold.
"""

import logging
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("*.md", "LICENSE", "docs/*.md", "docs/*.ipynb", "docs/images/*", "client/README.md", "examples/*.*",
          "model_repo/*/README.md")  # fmt: skip
NAV = [
    {"Start": "README.md"},
    {"中文": "README.zh.md"},
    {"Use": [
        {"Classify": "docs/classify.md"}, {"Ask": "docs/ask.md"}, {"Files": "docs/files.md"},
        {"Explain": "docs/explain.md"}, {"Words, spans, vectors, choices, summaries": "docs/heads.md"},
        {"Python client": "client/README.md"}, {"Examples": "examples/README.md"},
        {"Other protocols": "docs/protocols.md"},
        {"Files of rows": "docs/batch.md"},
    ]},
    {"Your own model": [
        {"Convert": "docs/conversion.md"}, {"Train": "docs/training.md"},
        {"Which model, and its trust": "docs/judging.md"},
        {"Coming from pipelines": "docs/pipelines.md"},
    ]},
    {"Operate": [
        {"Promises, statuses, metrics": "docs/operations.md"}, {"In the cloud": "docs/cloud.md"},
        {"On CUDA": "docs/cuda.md"},
        {"Kubernetes": "docs/kubernetes.md"}, {"Ray": "docs/ray.md"},
        {"What it costs": "docs/cost.md"},
        {"Settings, routes, commands": "docs/reference.md"}, {"Compatibility": "docs/compatibility.md"},
    ]},
    {"How it works": [{"Architecture": "docs/architecture.md"}, {"How fast": "docs/benchmarks.md"}]},
    {"Models": [{name: f"model_repo/{name}/README.md"} for name in
                sorted(path.parent.name for path in ROOT.glob("model_repo/*/README.md"))]},
    {"Changes": "CHANGELOG.md"},
]  # fmt: skip


def build(out: Path) -> None:
    """Write the site to ``out``/site; whatever mkdocs warns of, such as a link to nowhere, is an error."""
    from mkdocs.commands.build import build as build_site
    from mkdocs.config import load_config

    pages = out / "pages"
    shutil.rmtree(pages, ignore_errors=True)
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            copy = pages / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    logging.getLogger("mkdocs").setLevel(logging.WARNING)
    config = load_config(
        config_file=str(ROOT / "docs" / "mkdocs.yml"), docs_dir=str(pages), site_dir=str(out / "site"), strict=True
    )
    config["nav"] = NAV
    config.validate()
    build_site(config)


if __name__ == "__main__":
    build(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build")
