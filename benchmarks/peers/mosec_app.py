from mosec import Server, Worker
from padded import BATCH, Padded


class Classifier(Worker):
    def __init__(self):
        self.model = Padded()

    def forward(self, data):
        return self.model([one["inputs"] for one in data]) if BATCH > 1 else self.model([data["inputs"]])[0]


if __name__ == "__main__":  # mosec reads --port itself
    server = Server()
    server.append_worker(Classifier, max_batch_size=BATCH, max_wait_time=10, timeout=120)
    server.run()
