-- Look at a partition's epoch and nothing else; `enter` makes one that is missing and renews one rolled back.
-- KEYS  1 epoch key
-- ARGV  1 now (ms) or ''  2 the epoch as the caller knows it
-- Returns {epoch, 1 if it was rolled back}.

local epoch = enter(KEYS[1], clock(ARGV[1]), ARGV[2])
return { text_of(epoch), epoch.renewed }
