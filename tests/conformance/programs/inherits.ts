/** Takes systemd's descriptors, and prints what a program that it runs has as descriptor 3, and which of systemd's variables. */
import { listenFds } from "@sockets/server";
import { spawnSync } from "node:child_process";

const [first] = listenFds();
// Not in a command substitution, for which the shell would open a descriptor of its own.
const command = "readlink /proc/$$/fd/3; echo variables: $LISTEN_FDS$LISTEN_PID$LISTEN_FDNAMES";
const { stdout } = spawnSync("/bin/sh", ["-c", command], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
console.log(`descriptor ${first?.fd}; a program has: ${stdout.trim().replaceAll("\n", " ")}`);
