#!lua flags=allow-oom
-- keep: writes the record of a session for the worker that has it, at the end of no turn: after the build, for a block
-- of numbers, at the end of a life. The first such save makes the session known to lists.
--
-- ARGV: id, wid, epoch, record.
-- Returns {'ok'}, {'conflict'}, or {'damaged', messages}. A writer with another wid or epoch is a conflict.
-- Twice: the second call finds the revision of the first, and changes nothing.
local id = ARGV[2]
if not is_owner(id, ARGV[3], ARGV[4]) then
    return { 'conflict' }
end
local result, messages = write_record(id, 5, true)
if result == 'already' then
    result = 'ok'
end
return { result, messages }
