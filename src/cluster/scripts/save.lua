#!lua
-- save: writes a record that no worker has, if its revision is the one that the writer has seen. A save that archives the
-- session ends its feeds.
--
-- ARGV: id, record.
-- Returns {'ok'}, {'conflict'}, or {'damaged', messages}. A worker that has the session is a conflict too.
-- Twice: the second call finds the revision of the first, and changes nothing.
local id = ARGV[2]
local there, wid = settle_owner(id)
if wid ~= '' then
    return { 'conflict' }
end
local result, messages = write_record(id, 3, false)
if result == 'already' then
    result = 'ok'
elseif result == 'ok' and ARGV[10] == '1' then
    end_feeds(id)
end
return { result, messages }
