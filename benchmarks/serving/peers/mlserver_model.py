"""MLServer with one inference worker per core; pictures come as base64 in its V2 protocol."""

from __future__ import annotations

import json

from mlserver import MLModel
from mlserver.codecs import Base64Codec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse
from torch_network import Classifier


class ImageModel(MLModel):
    """One model a worker."""

    async def load(self) -> bool:
        self.model = Classifier()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One picture -> its top labels."""
        prediction = self.model.classify(Base64Codec.decode_input(payload.inputs[0])[0])
        return InferenceResponse(
            model_name=self.name, outputs=[StringCodec.encode_output("top", [json.dumps(prediction)])]
        )
