/** A browser over its debugging pipe, with no more than Node. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import type { Readable, Writable } from 'node:stream';

const names = ['chromium', 'chromium-browser', 'google-chrome'];

/** The browser that is installed, or undefined. */
export function browserName(): string | undefined {
  return names.find((name) => spawnSync(name, ['--version'], { stdio: 'ignore' }).status === 0);
}

type Params = Record<string, unknown>;

export class Browser {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (message: Params) => void>();
  readonly #events: Params[] = [];
  #next = 1;
  #session: string | undefined;

  private constructor(child: ChildProcess) {
    this.#child = child;
    let text = '';
    (child.stdio[4] as Readable).setEncoding('utf8').on('data', (chunk: string) => {
      text += chunk;
      for (let end = text.indexOf('\0'); end >= 0; end = text.indexOf('\0')) {
        const message = JSON.parse(text.slice(0, end)) as Params;
        text = text.slice(end + 1);
        const resolve = this.#waiting.get(message.id as number);
        if (resolve) resolve(message);
        else this.#events.push(message);
      }
    });
  }

  /** Opens one page, offline. */
  static async start(name: string): Promise<Browser> {
    const flags = ['--headless=new', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe'];
    const child = spawn(name, flags, { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] });
    const browser = new Browser(child);
    const { targetId } = await browser.send('Target.createTarget', { url: 'about:blank' });
    const { sessionId } = await browser.send('Target.attachToTarget', { targetId, flatten: true });
    browser.#session = sessionId as string;
    for (const domain of ['Page', 'Runtime', 'Network', 'Log']) await browser.send(`${domain}.enable`);
    const offline = { offline: true, latency: 0, downloadThroughput: 0, uploadThroughput: 0 };
    await browser.send('Network.emulateNetworkConditions', offline);
    return browser;
  }

  async send(method: string, params: Params = {}): Promise<Params> {
    const id = this.#next++;
    const session = this.#session === undefined ? {} : { sessionId: this.#session };
    (this.#child.stdio[3] as Writable).write(`${JSON.stringify({ id, method, params, ...session })}\0`);
    const message = await new Promise<Params>((resolve) => this.#waiting.set(id, resolve));
    this.#waiting.delete(id);
    if (message.error) throw new Error(`${method}: ${JSON.stringify(message.error)}`);
    return message.result as Params;
  }

  /** What an expression gives in the page; promises are awaited. */
  async evaluate<T>(expression: string): Promise<T> {
    const { result, exceptionDetails } = await this.send('Runtime.evaluate', {
      expression,
      awaitPromise: true,
      returnByValue: true,
    });
    if (exceptionDetails) throw new Error(JSON.stringify(exceptionDetails));
    return (result as { value: T }).value;
  }

  /** Opens a page at a size and theme, and waits until its charts are drawn. */
  async open(url: string, size: { width: number; height: number }, dark: boolean): Promise<void> {
    const metrics = { ...size, deviceScaleFactor: 1, mobile: size.width < 600 };
    await this.send('Emulation.setDeviceMetricsOverride', metrics);
    const features = [{ name: 'prefers-color-scheme', value: dark ? 'dark' : 'light' }];
    await this.send('Emulation.setEmulatedMedia', { features });
    await this.send('Page.navigate', { url });
    for (let i = 0; i < 200; i++) {
      if (await this.evaluate('document.documentElement?.dataset.drawn !== undefined')) return;
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    throw new Error(`the charts of ${url} were not drawn in 10 s`);
  }

  /** Errors and requests to a network that the page made so far. */
  complaints(): string[] {
    return this.#events.flatMap(({ method, params }) => {
      const p = params as Params;
      if (method === 'Runtime.exceptionThrown') return [JSON.stringify(p.exceptionDetails)];
      if (method === 'Runtime.consoleAPICalled' && ['error', 'warning'].includes(String(p.type))) {
        return [JSON.stringify(p.args)];
      }
      if (method === 'Log.entryAdded' && (p.entry as Params).level === 'error')
        return [JSON.stringify(p.entry)];
      if (method === 'Network.requestWillBeSent') {
        const { url } = p.request as { url: string };
        return /^(file|data|about|blob):/.test(url) ? [] : [`request of ${url}`];
      }
      return [];
    });
  }

  async close(): Promise<void> {
    const closed = new Promise((resolve) => this.#child.on('close', resolve));
    this.#child.kill('SIGKILL');
    await closed;
  }
}
