#!/usr/bin/env python3
"""One training step, 16 normals and 16 defects, `per_patch`: flawtune beside vectorised PyTorch with a sparse backward pass.

    python bench/peers/training.py NORMALS.safetensors DEFECTS.safetensors [--prompts 20] [--threads 2] [--rounds 5]

The files are what `flawtune features -o FILE IMAGES` writes, at least 16 images each; both engines read the same ones.
flawtune is `cargo build --release -p flawtune-lab --example training`, found in target/ or by FLAWTUNE_TRAINING. torch,
numpy and safetensors come from PyPI into target/peers unless they are there. PyTorch finds the best matches without a
graph and sends the gradient back through them as a sparse matrix. Rounds take turns; medians are shown. Both losses are
the separability.
"""
import argparse
import statistics
import time

import environment

BATCH = 16
STEPS = 5
ALPHA = 0.01


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("normals")
    parser.add_argument("defects")
    parser.add_argument("--prompts", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    environment.enter(["torch", "numpy", "safetensors"])

    import torch
    from safetensors.torch import load_file

    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    normals, defects = (load_file(p)["patch_tokens"][:BATCH] for p in (args.normals, args.defects))
    tokens = torch.cat([normals, defects]).contiguous()
    images, patches, dim = tokens.shape

    class MeanBest(torch.autograd.Function):
        """`sim(normal_i -> image_j)`, `[normals, images]`, from unit rows `[images * patches, dim]`."""

        @staticmethod
        def forward(ctx, unit):
            best, index = [], []
            # a few normals at a time keep the product in the cache
            for rows in unit[: BATCH * patches].split(2 * patches):
                value, where = (rows @ unit.T).view(len(rows), images, patches).max(2)
                best.append(value)
                index.append(where)
            index = torch.cat(index) + torch.arange(images) * patches
            ctx.save_for_backward(unit, index)
            return torch.cat(best).view(BATCH, patches, images).mean(1)

        @staticmethod
        def backward(ctx, grad):
            unit, index = ctx.saved_tensors
            rows = BATCH * patches
            values = (grad / patches)[:, None].expand(BATCH, patches, images).reshape(-1)
            ends = torch.arange(rows + 1) * images
            sparse = torch.sparse_csr_tensor(ends, index.reshape(-1), values, (rows, images * patches))
            out = sparse.t().to_sparse_csr() @ unit[:rows]
            out[:rows] += sparse @ unit
            return out

    prompts = torch.empty(args.prompts, dim)
    torch.nn.init.xavier_uniform_(prompts)
    prompts.requires_grad_()
    scales = torch.full((args.prompts,), 0.1, requires_grad=True)
    adam = torch.optim.Adam([prompts, scales], 1e-3)
    off_diagonal = ~torch.eye(BATCH, dtype=torch.bool)

    def unit(x):
        return x / (x.norm(dim=-1, keepdim=True) + 1e-8)

    unit_tokens = unit(tokens)

    def step():
        scaled = prompts * scales[:, None]
        weights = torch.softmax(unit_tokens @ unit(scaled).T, -1)
        changed = unit(tokens + ALPHA * (weights @ scaled))
        similarities = MeanBest.apply(changed.view(-1, dim))
        nn, nd = similarities[:, :BATCH][off_diagonal], similarities[:, BATCH:]
        loss = -(nn.mean() - nd.mean()) / (nn.std() + nd.std() + 1e-8)
        adam.zero_grad()
        loss.backward()
        adam.step()
        return loss.item()

    program = environment.program("training", "FLAWTUNE_TRAINING")
    command = [program, args.normals, args.defects, "--threads", str(args.threads), "--prompts", str(args.prompts)]
    process = environment.Answering(command)
    process.line()

    def flawtune(work):
        return float(process.ask(work))

    def torch_steps():
        start = time.perf_counter()
        for _ in range(STEPS):
            step()
        return (time.perf_counter() - start) / STEPS

    flawtune("step"), torch_steps()
    plain, trained, theirs = [], [], []
    for _ in range(args.rounds):
        plain.append(flawtune("step"))
        trained.append(flawtune("steps 20") / 20)
        theirs.append(torch_steps())
    plain, trained, theirs = (statistics.median(times) for times in (plain, trained, theirs))
    print(f"16 + 16 images, {patches} patches of {dim}, {args.prompts} prompts, {args.threads} threads, loss {step():.4f}")
    print(f"PyTorch {torch.__version__}: {1e3 * theirs:.1f} ms a step")
    for name, ours in (("every pair searched in full", plain), ("as a training runs, matches kept", trained)):
        print(f"flawtune, {name}: {1e3 * ours:.1f} ms a step, {theirs / ours:.2f} times")


if __name__ == "__main__":
    main()
