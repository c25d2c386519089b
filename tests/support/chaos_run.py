"""What a `lepton run --chaos` has done, and how its job has come through it."""
import json
import re

# The copies of a state, or of a slice of it, that were all on ranks which died at once.
NOBODY = ("no rank has the training state", "both buddies")


def faults_of(done):
    """The kinds of the faults that it says took place, in their order."""
    return re.findall(r"^chaos: (kill two|kill|stop|pause|leave|drain) at step", done.stderr, re.MULTILINE)


def check_in_place(test, folder, done):
    """The job whose results are in `folder` went on after each fault with what its ranks held. Returns the number
    of recoveries in its ledger; several faults before a step is committed are one entry; and whether it began
    anew, which it may where nobody had the state any more. Callers say how often that may be."""
    job = json.loads((folder / "job.json").read_text())
    events = (folder / "events.jsonl").read_text()
    if job["attempt"] > 1:
        test.assertTrue(any(why in events for why in NOBODY), f"attempt {job['attempt']}\n{done.stderr}\n{events}")
        print("a restart: nobody had the state any more", flush=True)
    hurts = [kind for kind in faults_of(done) if kind != "pause"]
    test.assertGreaterEqual(job["recovery_count"], len(hurts) // 2, f"{done.stderr}\n{events}")
    return job["recovery_count"], job["attempt"] > 1
