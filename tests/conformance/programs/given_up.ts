/** Gives up connecting to the port that it is told; then nothing is left to keep the program running. */
import { connect, type SocketError } from "@sockets/server";

const [port, way] = process.argv.slice(2);
const options = way === "timeout" ? { timeout: 200 } : { signal: AbortSignal.timeout(200) };
const begun = performance.now();
try {
  await connect(`tcp://127.0.0.1:${port}`, options);
} catch (error) {
  const { name, code } = error as SocketError;
  console.log(name === "SocketError" ? code : name);
}
process.once("exit", () => console.log(performance.now() - begun < 20_000 ? "ended" : "held"));
