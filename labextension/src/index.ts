// JupyterLab's side of skillbus: a word in the status bar, and a panel behind it.

import { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Widget } from '@lumino/widgets';

import { Feed } from './feed';
import { Panel } from './panel';
import { headline, mark } from './words';

const SHOW = 'skillbus:show';

const plugin: JupyterFrontEndPlugin<void> = {
  id: 'skillbus:plugin',
  description: 'Shows whether this server manages skills or is stopped, and stops it.',
  autoStart: true,
  optional: [IStatusBar],
  activate: (app: JupyterFrontEnd, statusBar: IStatusBar | null) => {
    const feed = new Feed();
    const panel = new Panel(feed);
    app.shell.add(panel, 'right', { rank: 900 });
    app.commands.addCommand(SHOW, {
      label: 'Show Managed Skills',
      execute: () => app.shell.activateById(panel.id)
    });
    statusBar?.registerStatusItem('skillbus:status', {
      item: statusItem(feed, () => void app.commands.execute(SHOW)),
      align: 'left',
      rank: 900
    });
    feed.start();
  }
};

function statusItem(feed: Feed, show: () => void): Widget {
  const button = document.createElement('button');
  button.className = 'skb-Status';
  button.onclick = show;
  const draw = (): void => {
    const { tone, brief, sentence } = headline(feed);
    button.textContent = `${mark(tone)} ${brief}`;
    button.dataset.tone = tone;
    button.title = sentence;
  };
  feed.changed.connect(draw);
  draw();
  return new Widget({ node: button });
}

export default plugin;
