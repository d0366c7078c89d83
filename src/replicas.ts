import { type Address, formatAddress, toAddress } from "./address.ts";
import { Backoff } from "./backoff.ts";
import { BaseRequestHandler } from "./base_request_handler.ts";
import type { BaseServer, ShutdownOptions } from "./base_server.ts";
import { type ServerStats, sumStats } from "./stats.ts";
import { checkTimeout } from "./deadline.ts";
import { UnsupportedError } from "./errors.ts";
import { framed } from "./error_report.ts";
import { ignore } from "./promises.ts";
import type { Replica, SupervisedReplica } from "./replica.ts";
import { print } from "./print.ts";
import { checkOptions, checkSignal } from "./options.ts";
import { getRuntime, type Runtime } from "./runtime.ts";
import { TCPServer } from "./tcp_server.ts";
import { UDPServer } from "./udp_server.ts";
import type { WorkerKind } from "./worker.ts";
import { checkWorkerData } from "./worker_data.ts";
import { checkCount, checkWorkers } from "./worker_handler.ts";

/** What the server of a replica is to be made with: options that every TCP and UDP server takes. */
export interface ReplicaServerOptions {
  /** Lets the other replicas share the port. */
  allowReusePort: boolean;
  /** See {@linkcode Replicas.data}. */
  data: unknown;
}

/**
 * What a replica's module exports: a function that makes the server for an address, and may be async. The replica activates it,
 * has it serve and closes it.
 */
// deno-lint-ignore no-explicit-any
export type ReplicaServer = (address: Address, options: ReplicaServerOptions) => BaseServer<any> | Promise<BaseServer<any>>;

/** Options of {@linkcode Replicas}. Each but `runtime` sets the field of the same name. */
export interface ReplicasOptions {
  /** The sockets, threads and processes to use: the running runtime's by default. */
  runtime?: Runtime;
  /** See {@linkcode Replicas.count}. */
  count?: number;
  /** See {@linkcode Replicas.kind}. */
  kind?: WorkerKind;
  /** See {@linkcode Replicas.data}. */
  data?: unknown;
  /** See {@linkcode Replicas.allowReusePort}. */
  allowReusePort?: boolean;
  /** See {@linkcode Replicas.restartPause}. */
  restartPause?: number;
  /** See {@linkcode Replicas.maxRestartPause}. */
  maxRestartPause?: number;
  /** See {@linkcode Replicas.startAttempts}. */
  startAttempts?: number;
  /** See {@linkcode Replicas.shutdownTimeout}. */
  shutdownTimeout?: number;
}

/**
 * The same server several times, in processes or threads that accept on one address, each with an event loop of its own: how a
 * service uses all of a machine's cores. One that dies is started again.
 *
 * Each replica has a socket of its own on the port (SO_REUSEPORT), and the kernel spreads the clients over them by a hash of their
 * addresses. A replica that dies takes its own connections with it, those that waited to be accepted included; the others go on, and
 * the port stays taken as long as one of them runs. With `net.ipv4.tcp_migrate_req=1`, Linux (5.14 or later) gives the waiting
 * connections to another replica. Unix sockets can't be shared so: `ThreadingMixIn` and `ForkingMixIn` serve them on several cores.
 *
 * A replica begins its module anew, so a program that is its own module guards its start with `if (import.meta.main)`. What the
 * servers of replicas have in memory is not shared. A process whose supervisor is gone, however that happened, ends by itself.
 * Signals are the supervisor's affair: processes ignore SIGINT, SIGTERM and SIGHUP.
 *
 * @example
 * ```ts
 * import { type Address, AsyncTCPServer, BaseRequestHandler, connect, Replicas, type ReplicaServerOptions } from "@sockets/server";
 *
 * class Echo extends BaseRequestHandler {
 *   override async handle(): Promise<void> {
 *     for await (const chunk of this.request) await this.request.write(chunk);
 *   }
 * }
 *
 * // What each replica runs.
 * export default function service(address: Address, options: ReplicaServerOptions): AsyncTCPServer {
 *   return new AsyncTCPServer(address, Echo, options);
 * }
 *
 * // A replica loads this module too, and must not begin replicas of its own.
 * if (import.meta.main) {
 *   const replicas = new Replicas("tcp://127.0.0.1:0", import.meta.url, { count: 2 });
 *   await replicas.activate();
 *   const serving = replicas.serveForever();
 *   const client = await connect(replicas.serverAddress);
 *   await client.write("ping");
 *   console.log(new TextDecoder().decode(await client.read() ?? undefined)); // ping
 *   await client.close();
 *   await replicas.shutdown({ drain: 5000 });
 *   await serving;
 *   await replicas.serverClose();
 * }
 * ```
 */
export class Replicas implements AsyncDisposable {
  /** The address given; once bound, the one bound, with the real port. */
  serverAddress: Address;
  /** The URL of the module that the replicas run. */
  readonly module: string;
  /** The sockets, threads and processes in use. */
  readonly runtime: Runtime;
  /** How many replicas there are to be: as many as the machine has cores, by default. */
  count: number;
  /**
   * Where they run: `"process"`, the default, or `"thread"`. Processes share nothing, and no crash reaches another; threads start
   * sooner, take less memory and can share a `SharedArrayBuffer`, but what ends the process ends them all.
   */
  kind: WorkerKind = "process";
  /** What the servers' `data` is to be: a copy, by way of JSON in processes; threads share its `SharedArrayBuffer`s. */
  data: unknown = null;
  /**
   * Lets programs of the same user that set it too share the port: `false` by default, so that a second start of the same service is
   * `EADDRINUSE` rather than a half of the clients gone astray. To see to that, the address is bound once before the replicas start.
   */
  allowReusePort = false;
  /** Milliseconds before a replica that died is started again: 100 by default. Doubles each time that this happens. */
  restartPause = 100;
  /** The longest such pause, in milliseconds: 30,000 by default. A replica that has run for as long begins with the shortest again. */
  maxRestartPause = 30_000;
  /**
   * How often each replica may be started again in vain, as when the module can't be loaded any more, before `serveForever()` gives
   * up: 10 by default, which is after about a minute. It does not give up while one of them runs.
   */
  startAttempts = 10;
  /**
   * Milliseconds that `serverClose()` gives to the requests in progress before it aborts them: 15,000 by default. The servers' own
   * field of this name is set to it.
   */
  shutdownTimeout = 15_000;

  #options: ReplicasOptions;
  #members: SupervisedReplica[] = [];
  #activated: Promise<void> | null = null;
  /** Rejects while the replicas are being started for the first time and one dies. */
  #activating: PromiseWithResolvers<never> | null = null;
  /** Whether those that die are to be started again. */
  #restarting = false;
  #shutdownRequested = false;
  /** What ends `serveForever()` with an error. */
  #failure: { error: unknown } | null = null;
  #serving: Promise<void> | null = null;
  #closing: Promise<void> | null = null;
  /** Ends `serveForever()`; there while the replicas serve. */
  #stop: (() => void) | null = null;
  /** What the replicas of earlier activations have counted. */
  #past: ServerStats | null = null;

  /**
   * Checks the arguments; nothing is started yet: `activate()` does that, and `serveForever()` when it has not been done.
   *
   * @param address Where to serve: `tcp://host:port` or `udp://host:port`, or an object. Port 0 asks for a free one.
   * @param module The URL of the module that exports a {@linkcode ReplicaServer}: as `default`, or as what the URL's fragment says.
   * @param options Values for the fields; they win over what a subclass sets.
   * @throws {TypeError} When the address is none, or the module no URL.
   * @throws {RangeError} When the port is no integer from 0 to 65535.
   */
  constructor(address: string | Address, module: URL | string, options: ReplicasOptions = {}) {
    this.serverAddress = toAddress(address);
    if (!(module instanceof URL) && !(typeof module === "string" && URL.canParse(module))) {
      throw new TypeError(
        `module must be the URL of a module that exports a function that makes a server, such as ` +
          `new URL("./service.ts", import.meta.url), got ${typeof module === "function" ? "a function" : String(module)}`,
      );
    }
    if (typeof options !== "object" || options === null) {
      throw new TypeError(`options must be an object, got ${String(options)}`);
    }
    this.module = String(module);
    this.runtime = options.runtime ?? getRuntime();
    this.count = this.runtime.capabilities.cores;
    this.#options = options;
  }

  /** The replicas: empty before `activate()`. */
  get members(): readonly Replica[] {
    return this.#members;
  }

  // Methods for the caller.

  /**
   * Starts the replicas, unless that has been done, and resolves when all of them listen. When one can't, none is left.
   *
   * @throws {TypeError} When an option has no such field, a field a value of the wrong type, or the module no such export.
   * @throws {RangeError} When a field has a value out of its range.
   * @throws {SocketError} When the address can't be bound.
   * @throws {UnsupportedError} When the address can't be shared, or not on this runtime; then nothing is started.
   * @throws {Error} What loading the module or making the server threw, or what ended a replica while it started.
   */
  activate(): Promise<void> {
    return this.#activated ??= this.#activate().catch((error) => {
      this.#activated = null;
      throw error;
    });
  }

  /**
   * Has the replicas serve until `shutdown()`, or `signal`, stops it, and starts those anew that die.
   *
   * @param options `signal`: stops the replicas when it fires.
   * @throws {SystemExit} When a handler threw one.
   * @throws {Error} When no replica is left and none can be started, with what the last one failed with; when they are serving already;
   * and whatever `handleError` throws.
   */
  async serveForever(options: { signal?: AbortSignal } = {}): Promise<void> {
    checkOptions("serveForever()", options, ["signal"]);
    const { signal } = options;
    checkSignal("serveForever()", signal);
    if (this.#serving !== null) throw new Error("the replicas are serving already");
    const stop = () => void this.shutdown();
    const done = Promise.withResolvers<void>();
    this.#serving = done.promise;
    signal?.addEventListener("abort", stop);
    if (signal?.aborted) this.#shutdownRequested = true;
    try {
      if (!this.#shutdownRequested) await this.activate();
      if (!this.#shutdownRequested && this.#failure === null) await this.#serve();
      const failure = this.#failure;
      this.#failure = null;
      if (failure !== null) throw failure.error;
    } finally {
      signal?.removeEventListener("abort", stop);
      this.#shutdownRequested = false;
      this.#serving = null;
      done.resolve();
    }
  }

  /**
   * Stops `serveForever()`, in all replicas at once; called before it, stops the next one. The address stays bound: what comes waits
   * in the replicas' queues.
   *
   * @param options `drain`: milliseconds that the requests in progress have to finish before they are aborted. A replica that does not
   * answer, as when a handler computes without end, is ended 3 seconds after that.
   * @returns A promise that resolves once `serveForever()` has returned, and with `drain` once no request is in progress.
   */
  async shutdown(options: ShutdownOptions = {}): Promise<void> {
    const { drain } = options;
    if (drain !== undefined) checkTimeout("drain", drain);
    this.#shutdownRequested = true;
    await this.#stopServing(drain);
    this.#stop?.();
    await this.#serving;
  }

  /**
   * Stops serving, ends the replicas and frees the address. Requests in progress have `shutdownTimeout` milliseconds to finish and are
   * aborted then; a replica that does not answer is ended 3 seconds after that. Does nothing the second time.
   *
   * @param options `drain`: milliseconds in place of `shutdownTimeout`; see `BaseServer.serverClose()`.
   */
  async serverClose(options: ShutdownOptions = {}): Promise<void> {
    const { drain } = options;
    if (drain !== undefined) checkTimeout("drain", drain);
    const serving = this.#serving;
    if (serving !== null) this.#shutdownRequested = true;
    await this.#close(drain);
    // Those that it was about to start, too.
    await this.#activated?.catch(ignore);
    await this.#close(drain);
    this.#activated = null;
    this.#stop?.();
    await serving;
  }

  /** The same as {@linkcode Replicas.serverClose}, for `await using`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.serverClose();
  }

  /**
   * Asks the replicas what they have counted; one that computes answers when it is done.
   *
   * @returns The sums, in which are those of replicas that were closed, or have died. Of the latter it is what they last told, which they do
   * every second and whenever this is called: what they had counted after that is lost, and connections that they had open count as
   * `ended.reset`. What counts up never becomes less.
   */
  async stats(): Promise<ServerStats> {
    await Promise.all(this.#members.map((member) => member.count()));
    return this.#counted();
  }

  /** What is known to have been counted. */
  #counted(): ServerStats {
    const past = this.#past === null ? [] : [this.#past];
    return sumStats([...past, ...this.#members.flatMap(({ counted }) => counted)]);
  }

  // A method that may be overridden.

  /**
   * Called when a replica has died or could not be started again; by default prints what happened to stderr. Throwing here ends
   * `serveForever()` with what is thrown.
   *
   * @param replica The replica; `replica.pause` says when it is started again, `null` that it is not.
   * @param error What it died of: what nobody caught in a thread, or its exit status, or the signal that ended it.
   */
  handleError(replica: Replica, error: unknown): void | Promise<void> {
    const next = replica.pause === null ? "is not started again" : `is started again in ${replica.pause} ms`;
    print(framed(`Replica ${replica.index} of ${formatAddress(this.serverAddress)} is gone and ${next}`, error));
  }

  // Methods for derived classes.

  /** Checks the fields before anything is started. A subclass that overrides it calls `super.validate()`. */
  protected validate(): void {
    const { serverAddress, runtime: { name, capabilities }, count, kind, restartPause, maxRestartPause } = this;
    if (!("port" in serverAddress)) {
      const unix = serverAddress.transport === "unix" ? "UnixStreamServer" : "UnixDatagramServer";
      throw new UnsupportedError(
        `replicas share a port (SO_REUSEPORT), and ${
          formatAddress(serverAddress)
        } has none: use Threading${unix}, or Forking${unix} ` +
          "with requestsPerChild: Infinity",
      );
    }
    const capability = serverAddress.transport === "udp" ? capabilities.reusePortUdp : capabilities.reusePort;
    if (capability !== true) {
      throw new UnsupportedError(`replicas can't share ${formatAddress(serverAddress)} on ${name} here: ${capability}`);
    }
    checkCount("count", count, 1);
    if (count === Infinity) throw new RangeError("count must be finite, got Infinity");
    if (kind !== "process" && kind !== "thread") {
      throw new TypeError(`kind must be "process" or "thread", got ${String(kind)}`);
    }
    checkWorkerData(kind, this.data);
    checkWorkers(kind, this.runtime);
    checkTimeout("restartPause", restartPause);
    checkTimeout("maxRestartPause", maxRestartPause);
    if (maxRestartPause < restartPause || maxRestartPause === Infinity) {
      throw new RangeError(`maxRestartPause must be finite and no less than restartPause, got ${maxRestartPause}`);
    }
    checkCount("startAttempts", this.startAttempts, 1);
    checkTimeout("shutdownTimeout", this.shutdownTimeout);
  }

  async #activate(): Promise<void> {
    // Here and not in the constructor, where the fields of a subclass are not set yet.
    const { runtime: _, ...fields } = this.#options;
    for (const [name, value] of Object.entries(fields)) {
      if (!(name in this)) throw new TypeError(`unknown option: ${name}`);
      if (value !== undefined) (this as Record<string, unknown>)[name] = value;
    }
    this.validate();
    const [{ SupervisedReplica }, { startWorker }] = await Promise.all([import("./replica.ts"), import("./worker.ts")]);
    await this.#claim();
    const { runtime, kind, module, data } = this;
    this.#past = this.#counted();
    this.#members = Array.from({ length: this.count }, (_, index) =>
      new SupervisedReplica({
        index,
        kind,
        connections: this.serverAddress.transport === "tcp",
        backoff: new Backoff(this.restartPause, this.maxRestartPause),
        spawn: (onFrame) =>
          startWorker(runtime, kind, { entry: "server", module, serverAddress: this.serverAddress, data }, onFrame),
        gone: (member, error, lasted) => this.#lost(member, error, lasted),
        ended: (error) => error === null ? void this.shutdown() : this.#fail(error),
      }));
    this.#failure = null;
    this.#activating = Promise.withResolvers();
    this.#activating.promise.catch(ignore);
    try {
      // The first one finds out the real port, and whatever is wrong, so that it is said once.
      const address = await this.#members[0]!.start(this.serverAddress);
      const others = this.#members.slice(1).map((member) => member.start(address));
      await Promise.race([Promise.all(others), this.#activating.promise]);
      this.serverAddress = address;
      this.#restarting = true;
    } catch (error) {
      await this.#close();
      this.#past = this.#counted();
      this.#members = [];
      throw error;
    } finally {
      this.#activating = null;
    }
  }

  /** Makes sure that nobody else has the port, which sharing it would hide. */
  async #claim(): Promise<void> {
    const { runtime, serverAddress: address } = this;
    if (this.allowReusePort || !("port" in address) || address.port === 0) return;
    const Server = address.transport === "udp" ? UDPServer : TCPServer;
    // Somebody else's socket on the same port of IPv4 is none on that of `::`, if the replicas' servers say ipv6Only; else they find it.
    const ipv6Only = address.hostname === "::" && runtime.capabilities.ipv6Only === true;
    const probe = new Server<never>(address, BaseRequestHandler, { runtime, ipv6Only });
    await probe.activate();
    await probe.serverClose();
  }

  async #serve(): Promise<void> {
    const stopped = Promise.withResolvers<void>();
    this.#stop = stopped.resolve;
    this.#restarting = true;
    for (const member of this.#members) {
      if (member.state === "running") member.serve();
      else if (member.state === "stopped") void this.#restart(member);
    }
    await stopped.promise;
    this.#stop = null;
    if (this.#failure !== null) await this.#stopServing(undefined);
  }

  async #stopServing(drain: number | undefined): Promise<void> {
    this.#restarting = false;
    for (const member of this.#members) member.wake();
    await Promise.all(this.#members.map((member) => member.shutdown(drain)));
  }

  #close(drain?: number): Promise<void> {
    return this.#closing ??= this.#closeAll(drain).finally(() => this.#closing = null);
  }

  async #closeAll(drain: number | undefined): Promise<void> {
    this.#restarting = false;
    await Promise.all(this.#members.map((member) => member.close(drain ?? this.shutdownTimeout, drain !== undefined)));
  }

  async #restart(member: SupervisedReplica): Promise<void> {
    member.restarts++;
    try {
      await member.start(this.serverAddress);
    } catch (error) {
      return this.#lost(member, error, 0);
    }
    // Not if it was stopped meanwhile.
    if (this.#restarting && this.#stop !== null) member.serve();
  }

  /** A replica is gone, after it had been running for `lasted` milliseconds. */
  #lost(member: SupervisedReplica, error: unknown, lasted: number): void {
    if (this.#activating !== null) return this.#activating.reject(error as never);
    if (this.#restarting) {
      if (this.#members.every(({ failedStarts }) => failedStarts >= this.startAttempts)) this.#fail(error);
      else member.sleep(lasted, () => void this.#restart(member));
    }
    void this.#report(member, error);
  }

  async #report(member: Replica, error: unknown): Promise<void> {
    try {
      await this.handleError(member, error);
    } catch (failure) {
      this.#fail(failure);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#stop?.();
  }
}
