"""The vLLM peer of `decoding.py`, which runs it with the Python of vLLM's own environment.

python vllm_peer.py FOLDER    reads the model and work.json there, writes out.json
"""

import json
import sys
import time
from pathlib import Path

from vllm import LLM, SamplingParams


def main() -> None:
    """Write responses to all prompts, several times, and tell how long it took."""
    folder = Path(sys.argv[1])
    work = json.loads((folder / "work.json").read_text("utf8"))
    longest = max(len(p) + n for p, n in zip(work["prompts"], work["new_tokens"], strict=True))
    # Half of a GPU: the process that started this one has two models there.
    options = {"enable_prefix_caching": True, "gpu_memory_utilization": 0.5}
    llm = LLM(work["model"], dtype=work["dtype"], max_model_len=longest + 8, **options)
    prompts = [{"prompt_token_ids": prompt} for prompt in work["prompts"]]
    results = []
    for k in work["ks"]:
        params = [
            SamplingParams(n=k, temperature=1.0 if k > 1 else 0.0, max_tokens=n, stop_token_ids=[work["end"]])
            for n in work["new_tokens"]
        ]
        llm.generate(prompts[:2], params[:2], use_tqdm=False)
        seconds, answers = [], []
        for _ in range(work["rounds"]):
            if seconds and seconds[0] > 60:
                break  # one round of these is enough
            llm.reset_prefix_cache()
            start = time.perf_counter()
            answers = llm.generate(prompts, params, use_tqdm=True)
            seconds.append(time.perf_counter() - start)
        ids = [[list(output.token_ids) for output in answer.outputs] for answer in answers]
        results.append({"seconds": seconds, "ids": ids})
    (folder / "out.json").write_text(json.dumps(results), "utf8")


if __name__ == "__main__":
    main()
