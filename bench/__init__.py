"""Speed and memory, as ratios in one run: absolute seconds say more about the machine than about the program."""
