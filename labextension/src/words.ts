// An account in words, for the status bar and the panel alike.

import { Feed, IAccount, ICause } from './feed';

export interface IHeadline {
  /** One of running, holding, stopping, stopped, absent, unknown: colours and icons hang on it. */
  tone: string;
  /** For the status bar. */
  brief: string;
  /** One sentence for the panel. */
  sentence: string;
}

const MARKS: { [tone: string]: string } = {
  running: '●',
  holding: '◐',
  stopping: '◍',
  stopped: '■',
  absent: '○',
  unknown: '?'
};

/** The mark beside each tone, so that no meaning hangs on colour alone. */
export function mark(tone: string): string {
  return MARKS[tone] ?? '?';
}

export function headline(feed: Feed): IHeadline {
  if (feed.silentSince !== null) {
    const since = feed.silentSince.toLocaleTimeString();
    return { tone: 'unknown', brief: 'Skills: unknown', sentence: `No answer from the server since ${since}.` };
  }
  if (feed.refusal !== '') {
    return { tone: 'stopped', brief: 'Skills: off', sentence: `Off: ${feed.refusal}.` };
  }
  const account = feed.account;
  if (account === null) {
    return { tone: 'unknown', brief: 'Skills: …', sentence: 'Not known yet.' };
  }
  switch (account.state) {
    case 'running':
      return { tone: 'running', brief: 'Skills: running', sentence: 'Running: skills are kept in line with the manifest.' };
    case 'stopped':
      return { tone: 'stopped', brief: 'Skills: stopped', sentence: `Stopped${since(account)}.` };
    case 'stopping':
      return { tone: 'stopping', brief: 'Skills: stopping', sentence: `Stopping${since(account)}: a pass is winding down.` };
    case 'absent':
      return { tone: 'absent', brief: 'Skills: none', sentence: 'No pod runs in this server.' };
    default:
      return { tone: 'holding', brief: `Skills: ${account.state}`, sentence: 'Holding: nothing is changed until it is known that it may be.' };
  }
}

function since(account: IAccount): string {
  return account.since_ms > 0 ? ` since ${new Date(account.since_ms).toLocaleString()}` : '';
}

/** Who stopped it, and why. */
export function causeWords(cause: ICause): string {
  const by = cause.by === '' ? '' : ` by ${cause.by}`;
  const lifted = cause.lifted ? ' (reset since: a restart of this server lets it run)' : '';
  return `${reach(cause.scope)}${by}: ${cause.reason || 'no reason given'}${lifted}`;
}

function reach(scope: string): string {
  const [kind, name] = scope.split(':');
  switch (kind) {
    case '':
      return 'This server alone';
    case 'fleet':
      return 'The whole fleet was stopped';
    case 'pod':
      return 'This pod was stopped';
    default:
      return `${kind} ${name} was stopped`;
  }
}
