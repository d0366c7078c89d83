"""Stands in for systemd: starts a program with a notification socket and a watchdog of 400 ms, and prints what the program tells it
and what it prints. Ends the program when it reads a line, and with its status; kills it at the end of its input."""
import os
import socket
import subprocess
import sys
import tempfile
import threading
import uuid

kind, command = sys.argv[1], sys.argv[2:]
folder = tempfile.TemporaryDirectory()
name = "@sockets-" + str(uuid.uuid4()) if kind == "abstract" else folder.name + "/notify"
told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
told.bind(name.replace("@", "\0", 1))
child = subprocess.Popen(
    # It must not survive a test that was given up.
    ["setpriv", "--pdeathsig", "KILL", *command, "--listen", "tcp://127.0.0.1:0"],
    env={**os.environ, "NOTIFY_SOCKET": name, "WATCHDOG_USEC": "400000"},
    stdin=subprocess.DEVNULL,
)


def tell():
    while True:
        print(told.recv(4096).decode(), flush=True)


threading.Thread(target=tell, daemon=True).start()
if sys.stdin.readline():
    child.terminate()
else:
    child.kill()
status = child.wait()
sys.stdout.flush()
os._exit(status)
