"""Flask and PyTorch, as in the article that this project grew from; behind waitress, as Flask's documentation wants."""

import sys

import waitress
from flask import Flask, request
from padded import Torch

app = Flask(__name__)
model = Torch()


@app.post("/classify")
def classify():
    return model([request.get_json()["inputs"]])[0]


waitress.serve(app, port=int(sys.argv[1]), threads=16, _quiet=True)
