"""A process that loads models from the hub it was started for: one JSON object in a line in, one in a line out.

HF_ENDPOINT, HF_HUB_OFFLINE and the cache are read by huggingface_hub when it is imported, hence the process.
"""

import json
import os
import sys


def main() -> None:
    out, sys.stdout = sys.stdout, sys.stderr
    import jaxdyn

    print("ready", file=out, flush=True)
    for line in sys.stdin:
        task = json.loads(line)
        os.environ.pop("HF_TOKEN", None)
        if task.get("token"):
            os.environ["HF_TOKEN"] = task["token"]
        try:
            model = jaxdyn.load(task["name"], revision=task.get("revision"))
        except jaxdyn.InputError as error:
            answer = {"error": str(error)}
        else:
            answer = {"hash": model.weights_hash, "revision": model.revision, "source": model.source}
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main()
