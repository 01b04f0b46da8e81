"""FastAPI and a transformers pipeline: what most tutorials end with."""

import sys

import torch
import uvicorn
from fastapi import Body, FastAPI
from padded import MODEL, THREADS
from transformers import pipeline

torch.set_num_threads(THREADS)
app = FastAPI()
classifier = pipeline("text-classification", model=str(MODEL), truncation=True, max_length=512)


@app.post("/classify")
def classify(inputs: str = Body(embed=True)):
    return classifier(inputs)


uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
