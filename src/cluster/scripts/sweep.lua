#!lua flags=no-writes
-- sweep: what a worker looks for after messages that it may have missed.
--
-- ARGV: wid.
-- Returns {'ok', {its sessions with a turn in flight}, {workers whose lease is gone}}.
local ids = redis.call('SMEMBERS', ns .. 'w:' .. ARGV[2] .. ':b')
local gone = {}
for _, wid in ipairs(redis.call('SMEMBERS', ns .. 'workers')) do
    if not lease_of(wid) then
        gone[#gone + 1] = wid
    end
end
table.sort(ids)
table.sort(gone)
return { 'ok', ids, gone }
