#!lua flags=no-writes
-- list: reads a page of the sessions, by their times of creation and then by their ids.
--
-- ARGV: the creation time in milliseconds and the id behind which the page begins ('' and '' for the first), the
-- maximum of sessions, at most 500.
-- Returns {'ok', {id, creation time, summary, labels, archived, turns in flight, '1' if it is faulted or '0'}...}. The
-- turns of a worker that is gone are left out. The page begins behind the given place also if that session was deleted
-- meanwhile.
local index = ns .. 'idx'
local start = 0
if ARGV[3] ~= '' then
    start = redis.call('ZCOUNT', index, '-inf', '(' .. ARGV[2])
    for _, id in ipairs(redis.call('ZRANGE', index, ARGV[2], ARGV[2], 'BYSCORE')) do
        if id <= ARGV[3] then
            start = start + 1
        end
    end
end
local found = redis.call('ZRANGE', index, start, start + math.min(tonumber(ARGV[4]), 500) - 1, 'WITHSCORES')
local page = { 'ok' }
for at = 1, #found, 2 do
    page[#page + 1] = list_row(found[at], found[at + 1])
end
return page
