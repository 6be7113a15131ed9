"""A SAM3 with random weights, small enough for a test, in a folder as the real one."""

import json

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="session")
def sam3_folder(tmp_path_factory):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    transformers = pytest.importorskip("transformers", reason="transformers is not installed (the extra `label`)")
    from tokenizers import pre_tokenizers

    folder = tmp_path_factory.mktemp("weights") / "sam3-tiny"
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    transformers.CLIPTokenizer(vocab={word: row for row, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    small = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    config = transformers.Sam3Config(
        vision_config={
            "backbone_config": {"model_type": "sam3_vit_model", **small, "num_hidden_layers": 2, "image_size": 112,
                                "window_size": 4, "global_attn_indexes": [1], "pretrain_image_size": 56},
            "fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={"model_type": "clip_text_model", **small, "vocab_size": len(words), "projection_dim": 32,
                     "num_hidden_layers": 1, "max_position_embeddings": 32, "bos_token_id": len(words) - 2,
                     "eos_token_id": len(words) - 1, "pad_token_id": len(words) - 1},
        geometry_encoder_config={**small, "num_layers": 1},
        detr_encoder_config={**small, "num_layers": 1, "dropout": 0.0},
        detr_decoder_config={**small, "num_layers": 1, "num_queries": 8, "dropout": 0.0},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 2},
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.Sam3Model(config)
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1 and "vision_encoder" not in name:  # far enough from 0 that masks have two sides
                torch.nn.init.xavier_normal_(parameter)
    model.save_pretrained(folder)
    return folder


@pytest.fixture
def annotated(tmp_path):
    """A street of one picture: pavement, road, a person; the kerb is annotated elsewhere."""
    image = np.full((56, 84, 3), 90, np.uint8)
    masks = {1: np.zeros((56, 84), bool), 2: np.zeros((56, 84), bool), 3: np.zeros((56, 84), bool)}
    masks[1][28:, :42], masks[2][28:, 42:], masks[3][10:40, 20:30] = True, True, True
    for label, colour in ((1, (200, 80, 200)), (2, (60, 60, 60)), (3, (0, 0, 255))):
        image[masks[label]] = colour
    cv2.imwrite(str(tmp_path / "street.png"), image)
    corners = {1: [0, 28, 42, 28, 42, 56, 0, 56], 2: [42, 28, 84, 28, 84, 56, 42, 56],
               3: [20, 10, 30, 10, 30, 40, 20, 40]}
    (tmp_path / "images.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "street.png", "height": 56, "width": 84}],
        "categories": [{"id": row, "name": name} for row, name in enumerate(("curb", "sidewalk", "road", "person"))],
        "annotations": [{"id": row, "image_id": 1, "category_id": row, "segmentation": [corner]}
                        for row, corner in corners.items()],
    }))
    return tmp_path / "images.json"
