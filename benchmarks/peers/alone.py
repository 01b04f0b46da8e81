"""Texts as JSON on stdin, one after the other through the plain export: seconds of each, as JSON."""

import json
import sys
import time

from padded import Padded

model, seconds = Padded(), []
for text in json.load(sys.stdin):
    began = time.perf_counter()
    model([text])
    seconds.append(time.perf_counter() - began)
print(json.dumps(seconds))
