"""Loads a folder in transformers, refusing every warning, and compares its loss with PyTorch's.

  load_in_transformers.py EXPORTED ORACLE

EXPORTED is a folder that Troupe wrote of the weights in ORACLE, a folder of record_llama.py.
Exits 1 with what was warned, or with both losses where they differ.
"""
import json
import logging
import os
import sys
import warnings

os.environ["HF_HUB_OFFLINE"] = "1"
warnings.simplefilter("error")

import torch  # noqa: E402

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # the library's own, while it is imported
    import transformers  # noqa: E402
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig  # noqa: E402

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from record_llama import loss_sum, read_safetensors  # noqa: E402


class Collector(logging.Handler):
    def __init__(self):
        super().__init__(logging.WARNING)
        self.messages = []

    def emit(self, record):
        self.messages.append(record.getMessage())


collector = Collector()
# Warnings once given by `warning_once` go through the same loggers.
for name in ("", "transformers", "huggingface_hub", "torch"):
    logging.getLogger(name).addHandler(collector)
transformers.utils.logging.set_verbosity_warning()
transformers.utils.logging.disable_progress_bar()

exported, oracle = sys.argv[1:]
AutoConfig.from_pretrained(exported)
generation = GenerationConfig.from_pretrained(exported)
model, info = AutoModelForCausalLM.from_pretrained(exported, output_loading_info=True)
for kind in ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs"):
    if info.get(kind):
        collector.messages.append(f"{kind}: {info[kind]}")
if generation.eos_token_id != [2, 3]:
    collector.messages.append(f"eos_token_id is {generation.eos_token_id}")

with open(os.path.join(oracle, "config.json")) as file:
    config = json.load(file)
with open(os.path.join(oracle, "expected.json")) as file:
    tokens = torch.tensor([json.load(file)["tokens"][:49]])
with torch.no_grad():
    wanted = loss_sum(read_safetensors(os.path.join(oracle, "model.safetensors")), config,
                      tokens[:, :-1], tokens[:, 1:]).item() / 48
    logits = model(input_ids=tokens[:, :-1]).logits
    got = torch.nn.functional.cross_entropy(logits[0].float(), tokens[0, 1:]).item()
    model.generate(tokens[:, :4], attention_mask=torch.ones(1, 4, dtype=torch.long),
                   max_new_tokens=2, do_sample=False, pad_token_id=0)
if abs(got - wanted) > 1e-5 * wanted:
    collector.messages.append(f"loss {got}, PyTorch's is {wanted}")
dtype = str(model.dtype)
print(f"transformers {transformers.__version__}: {os.path.basename(exported)} loads, {dtype}, "
      f"loss {got:.6f} (PyTorch {wanted:.6f}), {len(collector.messages)} warnings")
for message in collector.messages:
    print("  " + message)
sys.exit(1 if collector.messages else 0)
