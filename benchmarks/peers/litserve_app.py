import sys

import litserve
from padded import BATCH, WAIT, Padded


class Api(litserve.LitAPI):
    def setup(self, device):
        self.model = Padded()

    def decode_request(self, request):
        return request["inputs"]

    def batch(self, inputs):
        return inputs

    def predict(self, texts):
        return self.model(texts) if BATCH > 1 else self.model([texts])[0]

    def unbatch(self, output):
        return output

    def encode_response(self, output):
        return output


if __name__ == "__main__":
    batching = {"max_batch_size": BATCH, "batch_timeout": WAIT} if BATCH > 1 else {}
    api = Api(api_path="/classify", **batching)
    server = litserve.LitServer(api, accelerator="cpu", timeout=120)
    server.run(port=int(sys.argv[1]), generate_client_file=False, log_level="error", num_api_servers=1)
