/** Replicas that run while a test does, and clients that talk to them. */
import { getRuntime, type Replica, Replicas, type ReplicasOptions } from "@sockets/server";
import { assert } from "@std/assert";
import { type Client, openSocket } from "./adapters.ts";
import { until } from "./serving.ts";

export const runtime = getRuntime();
export const service = (name = "default") => new URL(`./handlers/replica.ts#${name}`, import.meta.url);
export const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

/** Keeps what went wrong instead of printing it, and the pause that followed. */
export class Quiet extends Replicas {
  errors: Error[] = [];
  pauses: (number | null)[] = [];
  override restartPause = 1;
  override handleError({ pause }: Replica, error: unknown): void {
    this.errors.push(error as Error);
    this.pauses.push(pause);
  }
}

/** Serves while `use` runs. */
export async function serving(
  options: ReplicasOptions,
  use: (replicas: Quiet) => Promise<void>,
  { address = "tcp://127.0.0.1:0", name = "default" } = {},
): Promise<void> {
  const replicas = new Quiet(address, service(name), { count: 2, ...options });
  await replicas.activate();
  const served = replicas.serveForever();
  served.catch(() => {});
  try {
    await use(replicas);
  } finally {
    await replicas.shutdown({ drain: 0 });
    await replicas.serverClose();
  }
  assert(replicas.members.every(({ state, id }) => state === "stopped" && id === null));
}

/** Connects to some replica: the kernel chooses. It says which it is. */
export async function open(replicas: Replicas): Promise<{ client: Client; id: number }> {
  const client = await openSocket(replicas.serverAddress);
  let greeting = "";
  while (!greeting.endsWith("\n")) {
    const more = await client.read(1);
    if (more === "") throw new Error("the connection ended before the greeting");
    greeting += more;
  }
  return { client, id: Number(greeting) };
}

export async function leave(client: Client): Promise<void> {
  await client.end().catch(() => {});
  await client.readAll();
}

/** A connection to each replica, by its id. */
export async function openAll(replicas: Replicas): Promise<Map<number, Client>> {
  const clients = new Map<number, Client>();
  while (clients.size < replicas.count) {
    const { client, id } = await open(replicas);
    if (clients.has(id)) await leave(client);
    else clients.set(id, client);
  }
  return clients;
}

export async function ask(client: Client, command: string): Promise<string> {
  await client.write(command);
  await client.end().catch(() => {});
  return text(await client.readAll());
}

export const idsOf = (replicas: Replicas) => new Set(replicas.members.map(({ id }) => id));
export const settled = (replicas: Replicas) => until(() => replicas.members.every(({ state }) => state === "running"));
export const restarts = (replicas: Replicas) => replicas.members.reduce((sum, { restarts }) => sum + restarts, 0);

/** Whether a process is. */
export function gone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}
