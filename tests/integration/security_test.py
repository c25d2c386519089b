#!/usr/bin/env python3
"""Secure by default: loopback only without keys and TLS, scoped and hashed keys, CURVE for workers."""
import json
import os
import pathlib
import shutil
import ssl
import stat
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from cluster import Cluster, DATA, lepton, main, train_spec  # noqa: E402


class Bind(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="lepton-test."))

    def tearDown(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def coordinator(self, *args):
        return lepton("coordinator", "--data-dir", self.folder / "data", "--http-port", 0, "--link-port",
                      0, *args, timeout=20)

    def test_another_bind_needs_keys_and_tls_and_says_how(self):
        done = self.coordinator("--http-address", "0.0.0.0")
        self.assertEqual(done.returncode, 1)
        self.assertIn("lepton key create", done.stderr)
        self.assertIn("--tls-cert", done.stderr)
        key = lepton("key", "create", "--data-dir", self.folder / "data", "--name", "ops")
        self.assertEqual(key.returncode, 0, key.stderr)
        done = self.coordinator("--http-address", "0.0.0.0")
        self.assertEqual(done.returncode, 1, "keys alone are not enough")
        self.assertIn("--tls-cert", done.stderr)

    def test_with_keys_and_tls_it_serves_https_to_key_holders(self):
        certificate, key_file = self.folder / "cert.pem", self.folder / "key.pem"
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                        "-keyout", key_file, "-out", certificate], check=True, capture_output=True)
        made = json.loads(lepton("key", "create", "--data-dir", self.folder / "data", "-o", "json").stdout)
        self.assertEqual(made["scopes"], ["admin"])
        secret = made["key"]
        self.assertTrue(secret.startswith(f"lk_{made['id']}_"), made["id"])
        cluster = Cluster(workers=0, folder=self.folder, coordinator_args=(
            "--http-address", "0.0.0.0", "--tls-cert", certificate, "--tls-key", key_file))
        try:
            url = cluster.url.replace("0.0.0.0", "127.0.0.1")
            self.assertTrue(url.startswith("https://"))
            context = ssl.create_default_context(cafile=str(certificate))
            with self.assertRaises(urllib.error.HTTPError) as refused:
                urllib.request.urlopen(url + "/v1/jobs", context=context, timeout=10)
            self.assertEqual(refused.exception.code, 401)
            done = lepton("ps", "--coordinator", url, "--ca-file", certificate, "--api-key", secret)
            self.assertEqual(done.returncode, 0, done.stderr)
            done = lepton("ps", "--coordinator", url, "--api-key", secret)
            self.assertEqual(done.returncode, 1, "an unknown certificate must not be trusted")
        finally:
            cluster.stop()


class Keys(unittest.TestCase):
    def test_scopes_expiry_and_storage(self):
        cluster = Cluster(workers=0)
        try:
            admin = cluster.call("POST", "/v1/keys", {"name": "root", "scopes": ["admin"]})[1]["key"]
            self.assertEqual(cluster.call("GET", "/v1/jobs")[0], 401, "one key closes every door")
            self.assertEqual(cluster.call("GET", "/healthz")[0], 200)
            cluster.headers = {"Authorization": f"Bearer {admin}"}
            self.assertEqual(cluster.call("GET", "/v1/jobs")[0], 200)
            read = cluster.call("POST", "/v1/keys", {"name": "eyes", "scopes": ["read"]})[1]
            brief = cluster.call("POST", "/v1/keys", {"name": "brief", "scopes": ["read"],
                                                      "ttl": "300ms"})[1]
            cluster.headers = {"Authorization": f"Bearer {read['key']}"}
            self.assertEqual(cluster.call("GET", "/v1/jobs")[0], 200)
            status, problem = cluster.call("POST", "/v1/jobs", train_spec())
            self.assertEqual(status, 403)
            self.assertIn("submit", problem["detail"])
            self.assertEqual(cluster.call("POST", "/v1/keys", {"name": "x", "scopes": ["admin"]})[0], 403)
            cluster.headers = {"Authorization": f"Bearer {brief['key']}"}
            time.sleep(0.5)
            self.assertEqual(cluster.call("GET", "/v1/jobs")[0], 401, "an expired key")
            cluster.headers = {"Authorization": f"Bearer {admin}"}
            self.assertIn(cluster.call("DELETE", f"/v1/keys/{read['id']}")[0], (200, 204))
            cluster.headers = {"Authorization": f"Bearer {read['key']}"}
            self.assertEqual(cluster.call("GET", "/v1/jobs")[0], 401, "a revoked key")
            secret = admin.rsplit("_", 1)[1].encode()
            for file in cluster.data.rglob("*"):
                if file.is_file():
                    self.assertNotIn(secret, file.read_bytes(), f"{file} holds the key itself")
        finally:
            cluster.stop()


class Predict(unittest.TestCase):
    def test_a_key_that_may_only_ask_can_ask(self):
        cluster = Cluster(workers=1)
        try:
            cluster.train(model={"hidden": [8]}, epochs=1)
            cluster.deploy(replicas=1)
            admin = cluster.call("POST", "/v1/keys", {"name": "root", "scopes": ["admin"]})[1]["key"]
            cluster.headers = {"Authorization": f"Bearer {admin}"}
            key = cluster.call("POST", "/v1/keys", {"name": "ask", "scopes": ["predict"]})[1]["key"]
            header, *rows = (DATA / "digits.csv").read_text().splitlines()
            names = header.split(",")
            first = dict(zip(names[:-1], map(float, rows[0].split(",")[:-1])))
            (cluster.folder / "rows.json").write_text(json.dumps([first]))
            # Without the answer's column, which such a key cannot look up.
            (cluster.folder / "rows.csv").write_text(
                "".join(line.rsplit(",", 1)[0] + "\n" for line in [header, rows[0]]))

            def predict(*args):
                return lepton("predict", "digits", *args, "-o", "json", "--coordinator", cluster.url,
                              env={"LEPTON_API_KEY": key})
            for asked in (predict("--input", cluster.folder / "rows.json"),
                          predict("--input", cluster.folder / "rows.csv"),
                          predict("--input", DATA / "digits.csv", "--label", "target", "--limit", 1)):
                self.assertEqual(asked.returncode, 0, asked.stderr)
                self.assertEqual(len(json.loads(asked.stdout)), 1)
            asked = predict("--input", DATA / "digits.csv", "--limit", 1)
            self.assertEqual(asked.returncode, 2, asked.stdout)
            self.assertIn("target", asked.stderr)
        finally:
            cluster.stop()


class Pool(unittest.TestCase):
    def test_only_holders_of_the_pools_key_join(self):
        cluster = Cluster(workers=0)
        other = Cluster(workers=0)
        try:
            for name in ("pool.key", "server.key"):
                self.assertEqual(stat.S_IMODE(os.stat(cluster.data / name).st_mode), 0o600)
            link = json.loads((cluster.data / "coordinator.json").read_text())["link"]
            stranger = cluster.spawn("stranger.log", "worker", "--link", link, "--pool-key",
                                     other.data / "pool.key", "--name", "stranger")
            cluster.workers.append(stranger)
            cluster.start_worker("friend")
            cluster.wait_for_workers(1)
            time.sleep(0.5)
            self.assertEqual([w["id"] for w in cluster.items("/v1/workers")], ["friend"])
            os.chmod(other.data / "pool.key", 0o644)
            done = lepton("worker", "--link", link, "--pool-key", other.data / "pool.key", timeout=20)
            self.assertEqual(done.returncode, 1)
            self.assertIn("chmod 600", done.stderr)
        finally:
            cluster.stop()
            other.stop()


if __name__ == "__main__":
    main()
