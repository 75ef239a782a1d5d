"""One engine in one short process: loads a network from a file, runs it, and says when the first result is there.

    python oneshot.py ort|ov|torch FILE BATCH THREADS RUNS        (`processes.py` starts it)

Prints `first` as soon as the first batch is done; peak memory is read from outside. The pixels are zeros, so that no engine
pays for decoding an image.
"""
import sys


def main():
    engine, path, batch, threads, runs = sys.argv[1], sys.argv[2], *(int(n) for n in sys.argv[3:])
    import numpy as np

    pixels = np.zeros((batch, 3, 224, 224), np.float32)
    if engine == "ort":
        import engines

        session = engines.onnxruntime_session(path, threads)
        call = lambda: session.run(None, {"pixels": pixels})
    elif engine == "ov":
        import engines

        request = engines.openvino_model(path, {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})
        request = request.create_infer_request()
        call = lambda: request.infer({"pixels": pixels})
    else:
        import timm
        import torch
        import torch_network
        from safetensors.torch import load_file

        torch.set_num_threads(threads)
        module = timm.create_model(torch_network.NAMES["s"], pretrained=False, img_size=224).eval()
        module.load_state_dict(load_file(path))
        tensor = torch.from_numpy(pixels)

        def call():
            with torch.inference_mode():
                return module.forward_features(tensor)

    call()
    print("first", flush=True)
    for _ in range(runs - 1):
        call()


if __name__ == "__main__":
    main()
