"""Reference values of attention rollout and Grad-CAM on the tiny backbone of `golden/ckpt/tiny_mlp`.

    python golden/visualize/make_golden.py

Everything is written out in plain PyTorch f64 from the formulas, and gradients are autograd's. The forward pass is checked
against `golden/peft` before anything is written. Writes `tiny_mlp.safetensors` and `manifest.json` beside this file.
"""

import json
import math
import platform
from pathlib import Path

import safetensors
import torch
from safetensors import safe_open
from safetensors.torch import save_file

HERE = Path(__file__).resolve().parent
GOLDEN = HERE.parent
# the share of an image's patches that makes its score: four of sixteen here
TOP_FRACTION = 0.25
SCALES, ALPHA = [0.5, 0.8, 1.2], 0.7


def tensors(path):
    with safe_open(path, "pt") as f:
        return {k: f.get_tensor(k).double() if f.get_tensor(k).is_floating_point() else f.get_tensor(k) for k in f.keys()}


class Vit:
    """DINOv3 of the goldens, with its attention weights kept."""

    def __init__(self, model):
        folder = GOLDEN / "ckpt" / model
        self.w, self.arch = tensors(folder / "hf.safetensors"), json.loads((folder / "arch.json").read_text())
        assert self.arch["ffn"] == "gelu_mlp"
        stored = tensors(GOLDEN / "backbone" / f"{model}.safetensors")
        self.cos, self.sin = stored["sq.rope_cos"], stored["sq.rope_sin"]
        self.prefix = 1 + self.arch["registers"]

    def embed(self, pixels):
        w, b = self.w["embeddings.patch_embeddings.weight"], self.w["embeddings.patch_embeddings.bias"]
        x = torch.nn.functional.conv2d(pixels, w, b, stride=self.arch["patch"]).flatten(2).transpose(1, 2)
        n = len(x)
        return torch.cat([self.w["embeddings.cls_token"].expand(n, -1, -1), self.w["embeddings.register_tokens"].expand(n, -1, -1), x], 1)

    def norm(self, x, name):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], self.arch["norm_eps"])

    def linear(self, x, name):
        return torch.nn.functional.linear(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"))

    def block(self, i, x, prefix):
        at, heads, width = f"layer.{i}", self.arch["heads"], self.arch["head_dim"]
        y = self.norm(x, f"{at}.norm1")
        q, k, v = (self.linear(y, f"{at}.attention.{p}_proj").unflatten(-1, (heads, width)).transpose(1, 2) for p in "qkv")

        def rotate(t):
            patches, half = t[:, :, prefix:], width // 2
            turned = torch.cat([-patches[..., half:], patches[..., :half]], -1)
            return torch.cat([t[:, :, :prefix], patches * self.cos + turned * self.sin], 2)

        a = torch.softmax(rotate(q) @ rotate(k).transpose(-1, -2) / math.sqrt(width), -1)
        y = self.linear((a @ v).transpose(1, 2).flatten(-2), f"{at}.attention.o_proj")
        x = x + y * self.w[f"{at}.layer_scale1.lambda1"]
        y = torch.nn.functional.gelu(self.linear(self.norm(x, f"{at}.norm2"), f"{at}.mlp.up_proj"))
        return x + self.linear(y, f"{at}.mlp.down_proj") * self.w[f"{at}.layer_scale2.lambda1"], a.mean(1)

    def forward(self, tokens, kind, prompts):
        """Normed tokens without prompts, what entered each block, and each block's attention, averaged over heads."""
        pre, k = self.prefix, 0 if prompts is None else prompts.shape[-2]
        inputs, attentions, x = [], [], tokens
        for i in range(self.arch["depth"]):
            if prompts is not None and (kind == "vpt_deep" or i == 0):
                fresh = (prompts[i] if kind == "vpt_deep" else prompts).expand(len(x), -1, -1)
                x = torch.cat([x[:, :pre], fresh, x[:, pre + (k if i else 0):]], 1)
            inputs.append(x)
            x, a = self.block(i, x, pre + k)
            attentions.append(a)
        x = self.norm(x, "norm")
        return torch.cat([x[:, :pre], x[:, pre + k:]], 1), inputs, attentions


def rollout(attentions, prefix, prompts, kind):
    """Abnar & Zuidema 2020: product over the blocks of the row-normalised (A + I). Columns: the tokens of the image
    [prefix, patches], then the prompts, one set after the other. Prompts that are written anew before a block start there:
    what the position held before is lost."""
    t = attentions[0].shape[-1]
    own = t - prompts
    sets = {"none": 0, "vpt_shallow": 1, "vpt_deep": len(attentions)}[kind]
    rows = [i if i < prefix else None if i < prefix + prompts else i - prompts for i in range(t)]
    r = torch.zeros(t, own + sets * prompts, dtype=torch.float64)
    for i, source in enumerate(rows):
        if source is not None:
            r[i, source] = 1
    for layer, a in enumerate(attentions):
        if layer < sets:
            for k in range(prompts):
                r[prefix + k] = 0
                r[prefix + k, own + layer * prompts + k] = 1
        mixed = a + torch.eye(t, dtype=a.dtype)
        r = mixed / mixed.sum(-1, keepdim=True) @ r
    return r


def unit(x):
    return x / (x.norm(dim=-1, keepdim=True) + 1e-8)


def score(patches, bank):
    """Patch-bank score: mean of the largest TOP_FRACTION of 1 - max cosine."""
    distances = 1 - (unit(patches) @ unit(bank).T).amax(-1)
    count = max(1, round(TOP_FRACTION * len(distances)))
    return distances.topk(count).values.mean(), distances


def per_patch(patches, prompts):
    s = prompts * torch.tensor(SCALES, dtype=torch.float64)[:, None]
    return patches + ALPHA * torch.softmax(unit(patches) @ unit(s).T, -1) @ s


def grad_cam(activations, gradient):
    """Selvaraju et al. 2017: ReLU of the activations weighted by the mean gradient of their channel."""
    return torch.relu(activations @ gradient.mean(0))


def main():
    model = "tiny_mlp"
    vit, out, checks = Vit(model), {}, {}
    inputs, peft = tensors(GOLDEN / "peft" / "inputs.safetensors"), tensors(GOLDEN / "peft" / f"{model}.safetensors")
    tokens = vit.embed(inputs["pixels"])
    normals, defect = inputs["normals"].tolist(), inputs["defects"].tolist()[0]
    for kind in ("none", "vpt_shallow", "vpt_deep"):
        prompts = peft.get(f"{kind}.in.prompts")
        k = 0 if prompts is None else prompts.shape[-2]
        features, entered, attentions = vit.forward(tokens, kind, prompts)
        checks[f"{kind}.tokens_vs_golden"] = float((features - peft[f"{kind}.f64.tokens"]).abs().max())
        assert checks[f"{kind}.tokens_vs_golden"] < 1e-5, checks
        for i, a in enumerate(attentions):
            out[f"{kind}.attention{i}"] = a[defect]
        out[f"{kind}.rollout"] = rollout([a[defect] for a in attentions], vit.prefix, k, kind)
        assert torch.allclose(out[f"{kind}.rollout"].sum(-1), torch.ones(1, dtype=torch.float64))

        for name, change in (("", lambda x: x), (".per_patch", lambda x: per_patch(x, peft["vpt_shallow.in.prompts"]))):
            if name and kind != "none":
                continue
            bank = change(features[normals][:, vit.prefix:].flatten(0, 1)).detach()
            for b in range(vit.arch["depth"]):
                # the rest of the backbone from what entered block b
                x = entered[b][defect: defect + 1].detach().clone().requires_grad_(True)
                y = x
                for i in range(b, vit.arch["depth"]):
                    if i > b and kind == "vpt_deep":
                        y = torch.cat([y[:, : vit.prefix], prompts[i][None], y[:, vit.prefix + k:]], 1)
                    y, _ = vit.block(i, y, vit.prefix + k)
                y = change(vit.norm(y, "norm")[0, vit.prefix + k:])
                value, distances = score(y, bank)
                (gradient,) = torch.autograd.grad(value, x)
                at = f"{kind}{name}"
                out[f"{at}.score"], out[f"{at}.distances"] = value.detach().reshape(1), distances.detach()
                out[f"{at}.block{b}.tokens"], out[f"{at}.block{b}.gradient"] = x[0].detach(), gradient[0]
                patches = slice(vit.prefix + k, None)
                out[f"{at}.block{b}.cam"] = grad_cam(x[0, patches], gradient[0, patches]).detach()
            nearest = (unit(features[defect, vit.prefix:]) @ unit(features[normals][:, vit.prefix:].flatten(0, 1)).T).topk(2, -1).values
            checks[f"{kind}.least_gap_between_matches"] = float((nearest[:, 0] - nearest[:, 1]).min())
    save_file({k: v.contiguous() for k, v in out.items()}, HERE / f"{model}.safetensors")
    manifest = {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "safetensors": safetensors.__version__},
        "image": "the defect of golden/peft/inputs.safetensors, its bank the patches of the three normals",
        "top_fraction": TOP_FRACTION,
        "per_patch": {"prompts": "vpt_shallow.in.prompts of golden/peft", "scales": SCALES, "alpha": ALPHA},
        "checks": checks,
        "tensors": {k: list(v.shape) for k, v in sorted(out.items())},
    }
    (HERE / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


if __name__ == "__main__":
    main()
