// The files of a drop, folders opened: what a browser hands over as entries that must be asked at once.

/**
 * All files of a drop; hidden ones in folders (.DS_Store) are left out. In the bucket all lie in one folder, so of two
 * files of one name the second gets its folders before its name.
 */
export async function filesOf(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  // before the first await: the list is emptied when the event is over
  const taken = items.map((item) => ({ entry: item.webkitGetAsEntry?.() ?? null, file: item.getAsFile() }));
  const found = [];
  for (const { entry, file } of taken) {
    if (entry?.isDirectory) await walk(entry, found);
    else if (file) found.push({ file, path: file.name });
  }
  const names = new Set();
  return found.map(({ file, path }) => {
    const name = names.has(file.name) ? path.replace(/^\//, "").replaceAll("/", "-") : file.name;
    names.add(name);
    return name === file.name ? file : new File([file], name, { type: file.type, lastModified: file.lastModified });
  });
}

async function walk(folder, found) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve) => { reader.readEntries(resolve, () => resolve([])); });
    if (!entries.length) return; // a folder is read in parts
    for (const entry of entries) {
      if (entry.name.startsWith(".")) continue;
      if (entry.isDirectory) await walk(entry, found);
      else await new Promise((resolve) => {
        entry.file((file) => { found.push({ file, path: entry.fullPath }); resolve(); }, resolve);
      });
    }
  }
}
