"""The network in PyTorch: timm's DINOv3 ViT with random weights, or the same operations in plain modules where timm lacks it."""
import engines
import network

PLAIN = "plain module"
NAMES = {"s": "vit_small_patch16_dinov3", "b": "vit_base_patch16_dinov3"}


def plain(model, side):
    """The operations of `network.export` as a torch module."""
    import torch
    from torch import nn
    from torch.nn import functional as f

    dim, heads = network.WIDTHS[model]
    count, head = network.tokens(side), dim // heads

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
            self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
            self.up, self.down = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)
            self.scale1, self.scale2 = (nn.Parameter(torch.full((dim,), 0.1)) for _ in range(2))

        def forward(self, x, cos, sin):
            batch = len(x)
            q, k, v = self.qkv(self.norm1(x)).view(batch, count, 3, heads, head).permute(2, 0, 3, 1, 4)

            def rotate(t):
                a, b = t.chunk(2, -1)
                return t * cos + torch.cat([-b, a], -1) * sin

            a = f.scaled_dot_product_attention(rotate(q), rotate(k), v)
            x = x + self.scale1 * self.out(a.transpose(1, 2).reshape(batch, count, dim))
            return x + self.scale2 * self.down(f.gelu(self.up(self.norm2(x))))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, dim, network.PATCH, network.PATCH)
            self.prefix = nn.Parameter(torch.randn(1, network.PREFIX, dim))
            self.layers, self.norm = nn.ModuleList(Layer() for _ in range(network.DEPTH)), nn.LayerNorm(dim)
            angles = torch.empty(count, head // 2).uniform_(-3, 3).repeat(1, 2)
            self.register_buffer("cos", angles.cos())
            self.register_buffer("sin", angles.sin())

        def forward(self, pixels):
            x = self.patch(pixels).flatten(2).transpose(1, 2)
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], 1)
            for layer in self.layers:
                x = layer(x, self.cos, self.sin)
            return self.norm(x)

        forward_features = forward

    return Network()


def create(model, side):
    """`(module, its name)`."""
    import torch

    torch.manual_seed(0)
    try:
        import timm

        name = NAMES[model]
        return timm.create_model(name, pretrained=False, img_size=side).eval(), f"timm {name}"
    except (ImportError, RuntimeError, TypeError):
        return plain(model, side).eval(), PLAIN


def candidates(case):
    """timm's network and the plain module; both attend by `scaled_dot_product_attention`, eagerly, in inference mode."""
    import torch

    torch.set_num_threads(case.threads)
    pixels = torch.from_numpy(case.pixels())

    def build(module):
        def call():
            with torch.inference_mode():
                return module.forward_features(pixels)

        count = call().shape[1]
        if count != network.tokens(case.side):
            raise ValueError(f"{count} tokens instead of {network.tokens(case.side)}")
        return engines.timed(call, case.batch)

    module, name = create(case.model, case.side)
    yield name, lambda: build(module)
    if name != PLAIN:
        yield PLAIN, lambda: build(plain(case.model, case.side).eval())
