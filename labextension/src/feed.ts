// What the server says of its pod: asked once, then told at each change. When it falls silent, that is said and nothing
// is made up. It starts nothing: there is no such route.

import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { ISignal, Signal } from '@lumino/signaling';

/** One cause of a stop, as GET skillbus/status has it. */
export interface ICause {
  kind: string;
  scope: string;
  reason: string;
  by: string;
  at: string;
  lifted: boolean;
}

/** One managed skill. */
export interface ISkill {
  name: string;
  root: string;
  url: string;
  revision: string;
  digest: string;
  instead_of: string;
}

/** The pod's account. `since_ms` is 0 while it is not latched. */
export interface IAccount {
  state: string;
  why: string;
  quiet: boolean;
  since_ms: number;
  causes: ICause[];
  last_pass: { id: string; outcome: string; took_s: number; errors: string[] } | null;
  pod: string;
  fleet: string;
  groups: string[];
  version: string;
}

/** What a stop came to: `stopped` only if the server has seen the pod quiet. */
export interface IStopped {
  stopped: boolean;
  was_running: boolean;
}

const RETRY_MS = 5000;

export class Feed {
  account: IAccount | null = null;
  skills: ISkill[] = [];
  errors: string[] = [];
  /** Since when nothing was heard; null while the server answers. */
  silentSince: Date | null = null;
  /** The words of a server that refuses to tell, such as under a policy. */
  refusal = '';

  private readonly _changed = new Signal<this, void>(this);
  private readonly _settings = ServerConnection.makeSettings();
  private _source: EventSource | null = null;
  private _passShown = '';
  private _timer = 0;

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  /** Begin to listen, and never give up. A page that nobody sees holds no stream: a browser has six connections for all
   *  pages of one server, and kernels need them, too. Once seen again, it asks at once. */
  start(): void {
    document.addEventListener('visibilitychange', () => this._turn());
    this._turn();
  }

  private _turn(): void {
    window.clearTimeout(this._timer);
    this._source?.close();
    this._source = null;
    void this._open();
  }

  private async _open(): Promise<void> {
    if (document.hidden) {
      return;
    }
    await this.look();
    if (document.hidden || this._source !== null) {
      return;
    }
    if (this.refusal === '') {
      this._listen();
    } else {
      this._timer = window.setTimeout(() => void this._open(), RETRY_MS);
    }
  }

  /** Ask for the whole account, the managed skills included. */
  async look(): Promise<void> {
    try {
      const response = await this._request('status', 'GET');
      if (response.status === 403) {
        const said = await response.json();
        this.refusal = String(said.message ?? 'the server refuses to tell');
      } else if (!response.ok) {
        throw new Error(`the server answers ${response.status}`);
      } else {
        const { skills, errors, ...account } = await response.json();
        this.skills = skills;
        this.errors = errors;
        this.refusal = '';
        this._hear(account as IAccount);
      }
      this.silentSince = null;
    } catch {
      this._fallSilent();
    }
    this._changed.emit();
  }

  /** Stop the pod of this server. Resolves with what the server has seen. */
  async stop(): Promise<IStopped> {
    const response = await this._request('reconciler/stop', 'POST');
    if (!response.ok && response.status !== 503) {
      throw new Error(`the server answers ${response.status}: the pod may go on`);
    }
    const said = (await response.json()) as IStopped;
    await this.look();
    return said;
  }

  private _request(path: string, method: string): Promise<Response> {
    const url = URLExt.join(this._settings.baseUrl, 'skillbus', path);
    return ServerConnection.makeRequest(url, { method }, this._settings);
  }

  private _listen(): void {
    const url = new URL(URLExt.join(this._settings.baseUrl, 'skillbus', 'events'), window.location.href);
    if (this._settings.appendToken && this._settings.token) {
      url.searchParams.set('token', this._settings.token);
    }
    const source = new EventSource(url.href, { withCredentials: true });
    source.addEventListener('status', event => {
      this.silentSince = null;
      this._hear(JSON.parse((event as MessageEvent<string>).data) as IAccount);
      this._changed.emit();
    });
    source.onerror = () => {
      source.close();
      this._source = null;
      this._fallSilent();
      this._changed.emit();
      window.clearTimeout(this._timer);
      this._timer = window.setTimeout(() => void this._open(), RETRY_MS);
    };
    this._source = source;
  }

  private _hear(account: IAccount): void {
    this.account = account;
    const pass = account.last_pass?.id ?? '';
    if (pass !== this._passShown) {
      this._passShown = pass;
      void this.look();
    }
  }

  private _fallSilent(): void {
    this.silentSince = this.silentSince ?? new Date();
  }
}
