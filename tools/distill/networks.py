"""The two networks: the frozen DINOv2 teacher and the small student of DINOv3 architecture.

Both are written out here, so that the recipe depends on PyTorch and a weight file only.
"""

import math

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(pictures: torch.Tensor) -> torch.Tensor:
    """Bytes [B, H, W, 3] to pixels [B, 3, H, W], ImageNet mean 0 and deviation 1."""
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    return (pictures.permute(0, 3, 1, 2).float() / 255 - mean) / std


class Teacher:
    """DINOv2 ViT-S/14 without registers, Hugging Face key names of the older spelling; position table 37×37."""

    dim, heads, depth, patch = 384, 6, 12, 14

    def __init__(self, path: str):
        self.w = {k: v.float() for k, v in load_file(path).items()}

    def positions(self, side: int) -> torch.Tensor:
        table = self.w["embeddings.position_embeddings"]
        cls, grid = table[:, :1], table[:, 1:]
        n = math.isqrt(grid.shape[1])
        grid = grid.reshape(1, n, n, self.dim).permute(0, 3, 1, 2)
        if side != n:
            grid = F.interpolate(grid, size=(side, side), mode="bicubic", align_corners=False)
        return torch.cat([cls, grid.permute(0, 2, 3, 1).reshape(1, side * side, self.dim)], 1)

    @torch.inference_mode()
    def tokens(self, pixels: torch.Tensor, layers: list[int]) -> list[torch.Tensor]:
        """[CLS, patches] after blocks `layers` (0-based), each through the final norm: [B, 1 + P, 384]."""
        w = self.w
        x = F.conv2d(pixels, w["embeddings.patch_embeddings.projection.weight"],
                     w["embeddings.patch_embeddings.projection.bias"], stride=self.patch)
        side = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([w["embeddings.cls_token"].expand(len(x), -1, -1), x], 1) + self.positions(side)
        found = {}
        for n in range(max(layers) + 1):
            p = f"encoder.layer.{n}."
            norm = lambda name, t: F.layer_norm(t, (self.dim,), w[p + name + ".weight"], w[p + name + ".bias"], 1e-6)
            lin = lambda name, t: F.linear(t, w[p + name + ".weight"], w[p + name + ".bias"])
            h = norm("norm1", x)
            q, k, v = (lin(f"attention.attention.{name}", h).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                       for name in ("query", "key", "value"))
            a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
            x = x + w[p + "layer_scale1.lambda1"] * lin("attention.output.dense", a)
            h = F.gelu(lin("mlp.fc1", norm("norm2", x)))
            x = x + w[p + "layer_scale2.lambda1"] * lin("mlp.fc2", h)
            if n in layers:
                found[n] = F.layer_norm(x, (self.dim,), w["layernorm.weight"], w["layernorm.bias"], 1e-6)
        return [found[n] for n in layers]


class Block(nn.Module):
    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim, eps=1e-5), nn.LayerNorm(dim, eps=1e-5)
        self.query, self.value, self.proj = (nn.Linear(dim, dim) for _ in range(3))
        self.key = nn.Linear(dim, dim, bias=False)  # as in DINOv3
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        # DINOv3 starts at 1e-5, for hundreds of thousands of steps; this recipe has a few thousand
        self.scale1, self.scale2 = (nn.Parameter(torch.full((dim,), 0.1)) for _ in range(2))

    def forward(self, x, cos, sin):
        h = self.norm1(x)
        q, k, v = (part(h).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value))
        q, k = (torch.cat([t[:, :, :-len(cos)], rotate(t[:, :, -len(cos):], cos, sin)], 2) for t in (q, k))
        a = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.scale1 * self.proj(a)
        return x + self.scale2 * self.fc2(F.gelu(self.fc1(self.norm2(x))))


def rotate(x, cos, sin):
    a, b = x.chunk(2, -1)
    return x * cos + torch.cat([-b, a], -1) * sin


def rope(side: int, head_dim: int):
    """cos and sin [P, head_dim] of DINOv3's axial rotary embedding, base 100."""
    at = 2 * (torch.arange(side) + 0.5) / side - 1
    periods = 100.0 ** (4 * torch.arange(head_dim // 4) / head_dim)
    y, x = torch.meshgrid(at, at, indexing="ij")
    angles = torch.stack([y, x], -1).reshape(-1, 2, 1) * (2 * math.pi) / periods
    angles = angles.flatten(1).tile(2)
    return angles.cos(), angles.sin()


class Student(nn.Module):
    """DINOv3 architecture: patch 16, [CLS, 4 registers, patches], rotary positions, LayerScale, one final norm."""

    dim, heads, depth, hidden, patch, registers = 256, 4, 6, 1024, 16, 4

    def __init__(self):
        super().__init__()
        self.embed = nn.Conv2d(3, self.dim, self.patch, self.patch)
        self.cls = nn.Parameter(torch.randn(1, 1, self.dim) * 0.02)
        self.register = nn.Parameter(torch.randn(1, self.registers, self.dim) * 0.02)
        self.blocks = nn.ModuleList(Block(self.dim, self.heads, self.hidden) for _ in range(self.depth))
        self.norm = nn.LayerNorm(self.dim, eps=1e-5)
        for m in self.modules():
            if isinstance(m, nn.Linear):
                nn.init.trunc_normal_(m.weight, std=m.in_features**-0.5)
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """[CLS, patches] after the final norm: [B, 1 + P, 256]."""
        x = self.embed(pixels)
        cos, sin = rope(x.shape[-1], self.dim // self.heads)
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), self.register.expand(len(x), -1, -1), x], 1)
        for block in self.blocks:
            x = block(x, cos.to(x.dtype), sin.to(x.dtype))
        x = self.norm(x)
        return torch.cat([x[:, :1], x[:, 1 + self.registers:]], 1)

    def named_by_file(self) -> dict[str, torch.Tensor]:
        """The parameters under the Hugging Face names of DINOv3."""
        t = {
            "embeddings.cls_token": self.cls,
            "embeddings.register_tokens": self.register,
            "embeddings.patch_embeddings.weight": self.embed.weight,
            "embeddings.patch_embeddings.bias": self.embed.bias,
            "norm.weight": self.norm.weight,
            "norm.bias": self.norm.bias,
        }
        for n, b in enumerate(self.blocks):
            p = f"layer.{n}."
            for name, part in (("q", b.query), ("k", b.key), ("v", b.value)):
                t[f"{p}attention.{name}_proj.weight"] = part.weight
                if part.bias is not None:
                    t[f"{p}attention.{name}_proj.bias"] = part.bias
            t |= {
                f"{p}attention.o_proj.weight": b.proj.weight, f"{p}attention.o_proj.bias": b.proj.bias,
                f"{p}mlp.up_proj.weight": b.fc1.weight, f"{p}mlp.up_proj.bias": b.fc1.bias,
                f"{p}mlp.down_proj.weight": b.fc2.weight, f"{p}mlp.down_proj.bias": b.fc2.bias,
                f"{p}norm1.weight": b.norm1.weight, f"{p}norm1.bias": b.norm1.bias,
                f"{p}norm2.weight": b.norm2.weight, f"{p}norm2.bias": b.norm2.bias,
                f"{p}layer_scale1.lambda1": b.scale1, f"{p}layer_scale2.lambda1": b.scale2,
            }
        return t

    def tensors(self) -> dict[str, torch.Tensor]:
        """The weights in f16, as the file holds them."""
        return {k: v.detach().half().contiguous() for k, v in self.named_by_file().items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """The reverse of `tensors`."""
        for name, parameter in self.named_by_file().items():
            parameter.copy_(tensors[name])
