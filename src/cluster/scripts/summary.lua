#!lua flags=no-writes
-- summary: reads what a list shows of one session.
--
-- ARGV: id.
-- Returns {'none'}, or {'ok', row} with a row as in `list`.
local id = ARGV[2]
local created = redis.call('ZSCORE', ns .. 'idx', id)
if not created then
    return { 'none' }
end
return { 'ok', list_row(id, created) }
