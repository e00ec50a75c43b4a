// The panel: one sentence, who stopped it and why, the managed skills, and a button that stops. None that starts.

import { Dialog, showDialog, showErrorMessage } from '@jupyterlab/apputils';
import { Widget } from '@lumino/widgets';

import { Feed, ISkill } from './feed';
import { causeWords, headline, mark } from './words';

export class Panel extends Widget {
  constructor(private readonly _feed: Feed) {
    super();
    this.id = 'skillbus-panel';
    this.title.label = 'Skills';
    this.title.caption = 'Managed agent skills, and whether they are kept up to date';
    this.addClass('skb-Panel');
    this._feed.changed.connect(() => this._draw());
    this._draw();
  }

  private _draw(): void {
    const { tone, sentence } = headline(this._feed);
    const head = element('p', 'skb-Headline', `${mark(tone)} ${sentence}`);
    head.dataset.tone = tone;
    head.setAttribute('role', 'status');
    this.node.replaceChildren(head, ...this._why(), ...this._stopButton(), ...this._skills());
    this.node.classList.toggle('skb-mod-stale', this._feed.silentSince !== null);
  }

  private _why(): HTMLElement[] {
    const account = this._feed.account;
    if (account === null || this._feed.refusal !== '') {
      return [];
    }
    const lines = account.causes.length > 0 ? account.causes.map(causeWords) : account.why === '' ? [] : [account.why];
    const parts = lines.map(line => element('p', 'skb-Why', line));
    if (account.pod !== '') {
      parts.push(element('p', 'skb-Aside', `pod ${account.pod} of fleet ${account.fleet}`));
    }
    return parts;
  }

  private _stopButton(): HTMLElement[] {
    const state = this._feed.account?.state ?? '';
    if (!['running', 'holding', 'starting', 'stopping'].includes(state) || this._feed.refusal !== '') {
      return [];
    }
    const button = element('button', 'jp-mod-styled jp-mod-warn skb-Stop', 'Stop…') as HTMLButtonElement;
    button.disabled = state === 'stopping';
    button.onclick = () => void this._ask();
    return [button];
  }

  private async _ask(): Promise<void> {
    const answer = await showDialog({
      title: 'Stop managing skills in this server?',
      body: 'The pass under way is aborted, and none starts until this server is restarted. Nothing here can start it again.',
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Stop' })],
      defaultButton: 0
    });
    if (!answer.button.accept) {
      return;
    }
    try {
      const said = await this._feed.stop();
      if (!said.stopped) {
        await showErrorMessage('Not stopped yet', 'It was told to stop, and its pass has not ended yet: this panel will say when it has.');
      }
    } catch (error) {
      await showErrorMessage('Not stopped', String((error as Error).message));
    }
  }

  private _skills(): HTMLElement[] {
    if (this._feed.account === null || this._feed.account.state === 'absent') {
      return [];
    }
    const parts: HTMLElement[] = this._feed.errors.map(error => element('p', 'skb-Error', error));
    parts.push(element('h3', 'skb-Title', `Managed skills (${this._feed.skills.length})`));
    if (this._feed.skills.length === 0) {
      return [...parts, element('p', 'skb-Aside', 'None is in place.')];
    }
    const list = element('ul', 'skb-Skills', '');
    list.append(...this._feed.skills.map(row));
    return [...parts, list];
  }
}

function row(skill: ISkill): HTMLElement {
  const item = element('li', 'skb-Skill', '');
  const rolled = skill.instead_of === '' ? '' : ' (rolled back)';
  const from = skill.revision === '' ? skill.digest.slice(0, 12) : skill.revision.slice(0, 12);
  item.append(element('strong', '', skill.name), element('span', 'skb-Revision', ` ${from}${rolled}`));
  item.append(element('div', 'skb-Aside', skill.url));
  item.title = `${skill.root}\ndigest ${skill.digest}`;
  return item;
}

// Text only, never markup: reasons and urls are foreign.
function element(tag: string, className: string, text: string): HTMLElement {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}
